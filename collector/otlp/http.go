package otlp

import (
	"context"
	"errors"
	"fmt"
	"math"
	"mime"
	"net/http"
	"strconv"

	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// Content types of OTLP/HTTP.
const (
	typeProtobuf = "application/x-protobuf"
	typeJSON     = "application/json"
)

// Handler answers /v1/logs, /v1/traces and /v1/metrics.
func (r *Receiver) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, s := range []collector.Signal{collector.Logs, collector.Traces, collector.Metrics} {
		mux.Handle("/v1/"+s.String(), r.signal(s))
	}
	return mux
}

func (r *Receiver) signal(s collector.Signal) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		if hr.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "OTLP takes POST", http.StatusMethodNotAllowed)
			return
		}
		kind, _, err := mime.ParseMediaType(hr.Header.Get("Content-Type"))
		if err != nil || (kind != typeProtobuf && kind != typeJSON) {
			r.refuse(w, s, typeProtobuf, 0, fmt.Errorf("otlp: Content-Type: %w: want %s or %s", controlbus.ErrUnsupported, typeProtobuf, typeJSON))
			return
		}
		res, size, err := r.serve(w, hr, s, kind)
		if err != nil {
			r.refuse(w, s, kind, size, err)
			return
		}
		answer, err := response(s, res, kind == typeJSON)
		if err != nil {
			r.refuse(w, s, kind, size, err)
			return
		}
		r.count("http", s, "200", size)
		w.Header().Set("Content-Type", kind)
		if _, err := w.Write(answer); err != nil {
			r.log.DebugContext(hr.Context(), "sender went away before the answer", "error", err)
		}
	})
}

// serve reads one request and makes it durable. size is its decompressed length.
func (r *Receiver) serve(w http.ResponseWriter, hr *http.Request, s collector.Signal, kind string) (res collector.Result, size int, err error) {
	req := collector.Request{Signal: s}
	if err := numbering(&req, hr.Header.Get); err != nil {
		return res, 0, err
	}
	// The compressed body is bounded, too: nobody needs more to say less.
	src, err := decompress(hr.Header.Get("Content-Encoding"), http.MaxBytesReader(w, hr.Body, r.cfg.MaxRequest))
	if err != nil {
		return res, 0, tooLarge(err)
	}
	defer src.Close()
	payload, err := r.pending.read(src, r.cfg.MaxRequest)
	if err != nil {
		return res, 0, tooLarge(err)
	}
	defer payload.release()
	size = len(payload.bytes)
	req.Payload = payload.bytes
	if kind == typeJSON {
		if req.Payload, err = r.fromJSON(hr.Context(), s, payload.bytes); err != nil {
			return res, size, err
		}
	}
	res, err = r.consume(hr.Context(), req)
	return res, size, err
}

// tooLarge recognises the limit of http.MaxBytesReader.
func tooLarge(err error) error {
	if limit := (*http.MaxBytesError)(nil); errors.As(err, &limit) {
		return fmt.Errorf("otlp: request is over %d bytes: %w", limit.Limit, controlbus.ErrTooLarge)
	}
	return err
}

// fromJSON is the request in protobuf, which is what everything behind works
// on. JSON unfolds to many times its size, so requests take turns.
func (r *Receiver) fromJSON(ctx context.Context, s collector.Signal, text []byte) ([]byte, error) {
	if err := checkJSON(text); err != nil {
		return nil, err
	}
	select {
	case r.json <- struct{}{}:
		defer func() { <-r.json }()
		return convertJSON(s, text)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func convertJSON(s collector.Signal, text []byte) (_ []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("otlp: %v request: %w: JSON cannot be read", s, controlbus.ErrInvalid)
		}
	}()
	var m interface {
		UnmarshalJSON([]byte) error
		MarshalProto() ([]byte, error)
	}
	switch s {
	case collector.Logs:
		m = plogotlp.NewExportRequest()
	case collector.Traces:
		m = ptraceotlp.NewExportRequest()
	default:
		m = pmetricotlp.NewExportRequest()
	}
	if err := m.UnmarshalJSON(text); err != nil {
		return nil, fmt.Errorf("otlp: %v request: %w: %.300s", s, controlbus.ErrInvalid, err.Error())
	}
	b, err := m.MarshalProto()
	if err != nil {
		return nil, fmt.Errorf("otlp: %v request: %w: %w", s, controlbus.ErrInvalid, err)
	}
	return b, nil
}

// maxJSONDepth leaves room for attribute values nested 64 deep, which take four
// levels of JSON each; pdata recurses into JSON without a limit of its own.
const maxJSONDepth = 256

// maxJSONObjects bounds what a request unfolds to: each object of OTLP's JSON
// becomes a struct of up to some hundred bytes.
const maxJSONObjects = 400_000

// checkJSON returns controlbus.ErrInvalid for JSON that nests too deep, and
// ErrTooLarge for JSON of too many objects.
func checkJSON(text []byte) error {
	depth, quoted, objects := 0, false, 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted:
			switch c {
			case '\\':
				i++
			case '"':
				quoted = false
			}
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			if objects++; objects > maxJSONObjects {
				return fmt.Errorf("otlp: more than %d objects in one request; send smaller batches: %w", maxJSONObjects, controlbus.ErrTooLarge)
			}
			if depth++; depth > maxJSONDepth {
				return fmt.Errorf("otlp: JSON nests deeper than %d: %w", maxJSONDepth, controlbus.ErrInvalid)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// response is the acknowledgement, with what was rejected for good.
func response(s collector.Signal, res collector.Result, asJSON bool) ([]byte, error) {
	var m interface {
		MarshalProto() ([]byte, error)
		MarshalJSON() ([]byte, error)
	}
	switch s {
	case collector.Logs:
		m = logsResponse(res)
	case collector.Traces:
		m = tracesResponse(res)
	default:
		m = metricsResponse(res)
	}
	if asJSON {
		return m.MarshalJSON()
	}
	return m.MarshalProto()
}

func logsResponse(res collector.Result) plogotlp.ExportResponse {
	m := plogotlp.NewExportResponse()
	if res.Rejected > 0 {
		m.PartialSuccess().SetRejectedLogRecords(res.Rejected)
		m.PartialSuccess().SetErrorMessage(res.Reason)
	}
	return m
}

func tracesResponse(res collector.Result) ptraceotlp.ExportResponse {
	m := ptraceotlp.NewExportResponse()
	if res.Rejected > 0 {
		m.PartialSuccess().SetRejectedSpans(res.Rejected)
		m.PartialSuccess().SetErrorMessage(res.Reason)
	}
	return m
}

func metricsResponse(res collector.Result) pmetricotlp.ExportResponse {
	m := pmetricotlp.NewExportResponse()
	if res.Rejected > 0 {
		m.PartialSuccess().SetRejectedDataPoints(res.Rejected)
		m.PartialSuccess().SetErrorMessage(res.Reason)
	}
	return m
}

// refuse answers with a google.rpc.Status in the sender's encoding, as OTLP
// asks.
func (r *Receiver) refuse(w http.ResponseWriter, s collector.Signal, kind string, size int, err error) {
	o := outcomeOf(err)
	r.count("http", s, strconv.Itoa(o.http), size)
	if o.after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(o.after.Seconds()))))
	}
	st := grpcStatus(err).Proto()
	var answer []byte
	var encodeErr error
	if kind == typeJSON {
		answer, encodeErr = protojson.Marshal(st)
	} else {
		answer, encodeErr = proto.Marshal(st)
	}
	if encodeErr != nil {
		http.Error(w, http.StatusText(o.http), o.http)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(o.http)
	if _, err := w.Write(answer); err != nil {
		r.log.Debug("sender went away before the answer", "error", err)
	}
}
