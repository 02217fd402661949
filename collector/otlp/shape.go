package otlp

import (
	"fmt"
	"math"

	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// Attribute values nest, and a decoder that recurses into a value of a million
// levels, six bytes each, exhausts its stack, which no recover can catch. So
// the shape of a request is walked first: wire format valid, nesting bounded.
//
// The walk knows which fields of which message are messages that can lead to
// an attribute value, and skips the rest unread.
// Field numbers are from opentelemetry-proto v1.

// maxNesting is how deep messages may lie in a request. Without attribute
// values OTLP needs 7; the rest is for values in values.
const maxNesting = 64

type message uint8

const (
	_ message = iota
	exportLogs
	resourceLogs
	scopeLogs
	logRecord
	exportTraces
	resourceSpans
	scopeSpans
	span
	spanEvent
	spanLink
	exportMetrics
	resourceMetrics
	scopeMetrics
	metric
	gauge // sum, histogram, ... have their points in field 1, too
	histogram
	exponential
	summary
	numberPoint
	histogramPoint
	exponentialPoint
	summaryPoint
	exemplar
	resource
	scope
	keyValue
	anyValue
	arrayValue
	kvlistValue
	messages // how many there are
)

// children maps a message's fields to the messages they hold.
var children = [messages][16]message{
	exportLogs:       {1: resourceLogs},
	resourceLogs:     {1: resource, 2: scopeLogs},
	scopeLogs:        {1: scope, 2: logRecord},
	logRecord:        {5: anyValue, 6: keyValue},
	exportTraces:     {1: resourceSpans},
	resourceSpans:    {1: resource, 2: scopeSpans},
	scopeSpans:       {1: scope, 2: span},
	span:             {9: keyValue, 11: spanEvent, 13: spanLink},
	spanEvent:        {3: keyValue},
	spanLink:         {4: keyValue},
	exportMetrics:    {1: resourceMetrics},
	resourceMetrics:  {1: resource, 2: scopeMetrics},
	scopeMetrics:     {1: scope, 2: metric},
	metric:           {5: gauge, 7: gauge, 9: histogram, 10: exponential, 11: summary, 12: keyValue},
	gauge:            {1: numberPoint},
	histogram:        {1: histogramPoint},
	exponential:      {1: exponentialPoint},
	summary:          {1: summaryPoint},
	numberPoint:      {5: exemplar, 7: keyValue},
	histogramPoint:   {8: exemplar, 9: keyValue},
	exponentialPoint: {1: keyValue, 11: exemplar},
	summaryPoint:     {7: keyValue},
	exemplar:         {7: keyValue},
	resource:         {1: keyValue},
	scope:            {3: keyValue},
	keyValue:         {2: anyValue},
	anyValue:         {5: arrayValue, 6: kvlistValue},
	arrayValue:       {1: anyValue},
	kvlistValue:      {1: keyValue},
}

// checkShape returns controlbus.ErrInvalid for bytes that are not the protobuf
// of an export request, or nest too deep.
func checkShape(signal collector.Signal, payload []byte) error {
	var root message
	switch signal {
	case collector.Logs:
		root = exportLogs
	case collector.Traces:
		root = exportTraces
	case collector.Metrics:
		root = exportMetrics
	default:
		return fmt.Errorf("otlp: %v: %w", signal, controlbus.ErrInvalid)
	}
	if why := walk(root, payload, maxNesting); why != "" {
		return fmt.Errorf("otlp: %v request: %w: %s", signal, controlbus.ErrInvalid, why)
	}
	return nil
}

const (
	whyTruncated = "the protobuf ends in the middle of a field"
	whyTag       = "the protobuf has an impossible field tag"
	whyDeep      = "attribute values nest too deep"
)

// Protobuf wire types.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// walk returns what is wrong with a message, empty when nothing is.
func walk(m message, b []byte, depth int) string {
	if depth == 0 {
		return whyDeep
	}
	for len(b) > 0 {
		tag, n := varint(b)
		if n == 0 {
			return whyTruncated
		}
		b = b[n:]
		field := tag >> 3
		if field == 0 || field > math.MaxInt32>>3 {
			return whyTag
		}
		switch tag & 7 {
		case wireVarint:
			_, n := varint(b)
			if n == 0 {
				return whyTruncated
			}
			b = b[n:]
		case wireFixed64:
			if len(b) < 8 {
				return whyTruncated
			}
			b = b[8:]
		case wireFixed32:
			if len(b) < 4 {
				return whyTruncated
			}
			b = b[4:]
		case wireBytes:
			size, n := varint(b)
			if n == 0 || size > uint64(len(b)-n) {
				return whyTruncated
			}
			if field < uint64(len(children[m])) && children[m][field] != 0 {
				if why := walk(children[m][field], b[n:n+int(size)], depth-1); why != "" {
					return why
				}
			}
			b = b[n+int(size):]
		default: // groups ended before OTLP began
			return whyTag
		}
	}
	return ""
}

// varint reads a number and how many bytes it took, 0 where there is none.
func varint(b []byte) (v uint64, n int) {
	for i := 0; i < len(b) && i < 10; i++ {
		c := b[i]
		if i == 9 && c > 1 {
			return 0, 0
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}

// checkJSONDepth returns controlbus.ErrInvalid for JSON that nests deeper than
// any OTLP request of bounded nesting needs: each level of an attribute value
// takes four in JSON.
func checkJSONDepth(text []byte) error {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted:
			if c == '\\' {
				i++
			} else if c == '"' {
				quoted = false
			}
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			if depth++; depth > 4*maxNesting {
				return fmt.Errorf("otlp: JSON nests deeper than %d: %w", 4*maxNesting, controlbus.ErrInvalid)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}
