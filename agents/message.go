package agents

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// maxNested is how deep lists and maps are flattened. Producers nest them as deep
// as a frame has room for, and each level has the names of those above it.
const maxNested = 32

// AppendText appends the value of a message's header as text, nested values
// flattened: x-death[0].reason.
func AppendText(hs []controlbus.Header, key string, v any) []controlbus.Header {
	return appendText(hs, key, v, 0)
}

func appendText(hs []controlbus.Header, key string, v any, depth int) []controlbus.Header {
	if depth >= maxNested {
		switch v.(type) {
		case map[string]any, []any:
			return append(hs, controlbus.Header{Key: key, Value: "…"})
		}
	}
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			hs = appendText(hs, key+"."+k, v[k], depth+1)
		}
		if len(v) > 0 {
			return hs
		}
	case []any:
		for i, e := range v {
			hs = appendText(hs, key+"["+strconv.Itoa(i)+"]", e, depth+1)
		}
		if len(v) > 0 {
			return hs
		}
	}
	return append(hs, controlbus.Header{Key: key, Value: Text(v)})
}

// Text writes a header's value so that nothing of a plain one is lost.
func Text(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return v
	case []byte:
		return string(v)
	case float32:
		return strconv.FormatFloat(float64(v), 'g', -1, 32)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case map[string]any:
		if len(v) == 0 {
			return "{}"
		}
	}
	return fmt.Sprint(v)
}
