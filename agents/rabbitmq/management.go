package rabbitmq

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// maxAnswer bounds what is read of one answer of the management API.
const maxAnswer = 32 << 20

// management is the HTTP API. Its lists are always paged and their columns
// named: the plain queue list of a large broker takes seconds and megabytes.
type management struct {
	base    string
	user    func() (name, password string, err error)
	client  *http.Client
	timeout time.Duration
}

type queueInfo struct {
	Name      string   `json:"name"`
	VHost     string   `json:"vhost"`
	Type      string   `json:"type"`
	Exclusive bool     `json:"exclusive"`
	Ready     *int64   `json:"messages_ready"`
	Unacked   *int64   `json:"messages_unacknowledged"`
	Bytes     *int64   `json:"message_bytes"`
	Consumers *int64   `json:"consumers"`
	Stats     *msgStat `json:"message_stats"`
}

type msgStat struct {
	Publish    *int64 `json:"publish"`
	DeliverGet *int64 `json:"deliver_get"`
	Ack        *int64 `json:"ack"`
}

const (
	nameColumns  = "name,vhost,exclusive"
	stateColumns = "name,vhost,type,exclusive,messages_ready,messages_unacknowledged,message_bytes,consumers," +
		"message_stats.publish,message_stats.deliver_get,message_stats.ack"
)

type binding struct {
	Source string     `json:"source"`
	Key    string     `json:"routing_key"`
	Args   amqp.Table `json:"-"`
}

func (b binding) id() string {
	args, _ := json.Marshal(b.Args)
	return strconv.Quote(b.Source) + strconv.Quote(b.Key) + string(args)
}

// statusError is an answer other than 2xx.
type statusError struct {
	code   int
	reason string
}

func (e *statusError) Error() string {
	return "management API: " + strconv.Itoa(e.code) + " " + http.StatusText(e.code) + e.reason
}

func (e *statusError) Unwrap() error {
	switch {
	case e.code == http.StatusNotFound:
		return controlbus.ErrNotFound
	case e.code == http.StatusUnauthorized || e.code == http.StatusForbidden:
		return controlbus.ErrDenied
	case e.code >= 500 || e.code == http.StatusTooManyRequests:
		return controlbus.ErrUnavailable
	default:
		return controlbus.ErrUnsupported
	}
}

func (m *management) do(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, m.base+path, body)
	if err != nil {
		return err
	}
	user, password, err := m.user()
	if err != nil {
		return err
	}
	req.SetBasicAuth(user, password)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := m.client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // the URL in front is long and says nothing new
		}
		return fmt.Errorf("management API: %w: %w", controlbus.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		var answer struct{ Reason string }
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 2048))
		reason := ""
		if json.Unmarshal(text, &answer) == nil && answer.Reason != "" {
			reason = ": " + answer.Reason
		}
		return &statusError{code: resp.StatusCode, reason: reason}
	}
	if out == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
		return nil
	}
	dec := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	dec.UseNumber()
	if err := dec.Decode(out); err != nil {
		return fmt.Errorf("management API: %s: %w", path, err)
	}
	return nil
}

// queues calls each for every queue of the virtual host. From 4.0 on the plain
// list is a reduced one and the numbers are in /api/queues/detailed.
func (m *management) queues(ctx context.Context, vhost, columns string, pageSize int, detailed bool, each func(queueInfo)) error {
	path := "/api/queues/" + url.PathEscape(vhost)
	if detailed {
		path = "/api/queues/detailed"
	}
	for page := 1; ; page++ {
		var answer struct {
			Items []queueInfo `json:"items"`
			Pages int         `json:"page_count"`
		}
		q := url.Values{"page": {strconv.Itoa(page)}, "page_size": {strconv.Itoa(pageSize)}, "columns": {columns}, "pagination": {"true"}}
		err := m.do(ctx, http.MethodGet, path+"?"+q.Encode(), nil, &answer)
		var status *statusError
		if errors.As(err, &status) && page > 1 && status.code == http.StatusBadRequest {
			return nil // queues went away while we were turning pages
		}
		if errors.As(err, &status) && detailed && (status.code == http.StatusNotFound || status.code == http.StatusMethodNotAllowed) {
			return m.queues(ctx, vhost, columns, pageSize, false, each)
		}
		if err != nil {
			return err
		}
		for _, qi := range answer.Items {
			if qi.VHost == vhost {
				each(qi)
			}
		}
		if page >= answer.Pages {
			return nil
		}
	}
}

func (m *management) queue(ctx context.Context, vhost, name string) (queueInfo, error) {
	var qi queueInfo
	err := m.do(ctx, http.MethodGet, "/api/queues/"+url.PathEscape(vhost)+"/"+url.PathEscape(name)+
		"?"+url.Values{"columns": {stateColumns}}.Encode(), nil, &qi)
	return qi, err
}

// bindings are those of the queue from named exchanges.
func (m *management) bindings(ctx context.Context, vhost, queue string) ([]binding, error) {
	var answer []struct {
		binding
		Args map[string]any `json:"arguments"`
	}
	err := m.do(ctx, http.MethodGet, "/api/queues/"+url.PathEscape(vhost)+"/"+url.PathEscape(queue)+"/bindings", nil, &answer)
	if err != nil {
		return nil, err
	}
	var out []binding
	for _, a := range answer {
		if a.Source == "" {
			continue // every queue is bound to the default exchange; nobody else can be
		}
		a.binding.Args = table(a.Args)
		out = append(out, a.binding)
	}
	return out, nil
}

func (m *management) exchangeType(ctx context.Context, vhost, name string) (string, error) {
	var x struct {
		Type string `json:"type"`
	}
	err := m.do(ctx, http.MethodGet, "/api/exchanges/"+url.PathEscape(vhost)+"/"+url.PathEscape(name)+"?columns=type", nil, &x)
	return x.Type, err
}

func (m *management) tracing(ctx context.Context, vhost string) (bool, error) {
	var v struct {
		Tracing bool `json:"tracing"`
	}
	err := m.do(ctx, http.MethodGet, "/api/vhosts/"+url.PathEscape(vhost), nil, &v)
	return v.Tracing, err
}

func (m *management) setTracing(ctx context.Context, vhost string, on bool) error {
	return m.do(ctx, http.MethodPut, "/api/vhosts/"+url.PathEscape(vhost), map[string]bool{"tracing": on}, nil)
}

// table turns JSON arguments back into AMQP fields. The broker compares
// arguments by value, so an integer's width does not matter.
func table(m map[string]any) amqp.Table {
	if len(m) == 0 {
		return nil
	}
	out := make(amqp.Table, len(m))
	for k, v := range m {
		out[k] = field(v)
	}
	return out
}

func field(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case string:
		if v == "undefined" { // how the API writes AMQP's void
			return nil
		}
		return v
	case map[string]any:
		return table(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = field(v[i])
		}
		return out
	default:
		return v
	}
}

func trimSlash(s string) string { return strings.TrimRight(s, "/") }
