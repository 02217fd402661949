package rabbitmq

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

func TestPublishingOf(t *testing.T) {
	t.Parallel()
	m := &agents.Message{TTL: 1500 * time.Microsecond, Time: time.Unix(5, 999), Headers: []agents.Field{
		{Key: "a", Value: "1"}, {Key: "CC", Value: []any{"elsewhere"}}, {Key: "a", Value: []byte{2}}, {Key: "BCC", Value: "x"}, {Key: "a", Value: nil},
		{Key: "n", Value: 7}, {Key: "big", Value: uint64(math.MaxInt64)},
	}}
	p, err := publishing(m, 10, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := amqp.Table{"a": []any{"1", []byte{2}, nil}, "n": int64(7), "big": int64(math.MaxInt64)}
	if !reflect.DeepEqual(p.Headers, want) {
		t.Errorf("headers: got %v, want %v", p.Headers, want)
	}
	if p.Expiration != "2" || p.Timestamp != time.Unix(5, 0) || p.DeliveryMode != amqp.Transient || p.UserId != "" {
		t.Errorf("properties: %+v", p)
	}
	if len(m.Headers) != 7 {
		t.Error("the message itself was changed")
	}
}

func TestPublishingRefuses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 256)
	for name, m := range map[string]*agents.Message{
		"body":   {Body: make([]byte, 11)},
		"type":   {Type: long},
		"header": {Headers: []agents.Field{{Key: "h", Value: strings.Repeat("x", 5000)}}},
		"nested": {Headers: []agents.Field{{Key: "h", Value: []any{map[string]any{"x": make(chan int)}}}}},
		"number": {Headers: []agents.Field{{Key: "h", Value: uint64(math.MaxUint64)}}},
	} {
		if _, err := publishing(m, 10, 4096); !errors.Is(err, controlbus.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}

// The size that is refused must not be less than what the library writes.
func TestFieldSize(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v    any
		want int
	}{
		{nil, 1}, {true, 2}, {int16(1), 3}, {int32(1), 5}, {uint32(1), 5}, {float32(1), 5}, {amqp.Decimal{}, 6}, {int64(1), 9}, {"ab", 7}, {[]byte{1, 2, 3}, 8}, {[]any{"", nil}, 11}, {amqp.Table{}, 5},
	} {
		if got := fieldSize(c.v); got != c.want {
			t.Errorf("%T %v: got %d, want %d", c.v, c.v, got, c.want)
		}
	}
	table := amqp.Table{"k": time.Unix(0, 0), "list": []any{int32(1), "x"}}
	if got, want := fieldSize(table), 5+(1+1+9)+(1+4+5+5+6); got != want {
		t.Errorf("a table: got %d, want %d", got, want)
	}
}

// Returned messages are told apart by what is in them; equal ones stand for each
// other.
func TestReturnsAreMatched(t *testing.T) {
	t.Parallel()
	bodies := []string{"a", "b", "b", "c"}
	pubs := make([]amqp.Publishing, len(bodies))
	flights := make([]flight, len(bodies))
	for i, body := range bodies {
		pubs[i] = amqp.Publishing{Body: []byte(body), Headers: amqp.Table{"n": int64(len(body))}}
		flights[i] = flight{i: i}
	}
	o := &outlet{drained: make(chan struct{})}
	close(o.drained)
	for _, body := range []string{"c", "b", "b", "unknown"} {
		o.returned = append(o.returned, amqp.Return{Body: []byte(body), Headers: amqp.Table{"n": int64(1)}})
	}
	o.returns(pubs[:3], flights[:3])
	// c and unknown are none of these three: something was returned all the same.
	for i, f := range flights[:3] {
		if !f.known {
			t.Errorf("message %d is not known as returned", i)
		}
	}
	flights = []flight{{i: 0}, {i: 1}, {i: 2}, {i: 3}}
	o.returned = []amqp.Return{{Body: []byte("c"), Headers: amqp.Table{"n": int64(1)}}, {Body: []byte("b"), Headers: amqp.Table{"n": int64(1)}}}
	o.returns(pubs, flights)
	if flights[0].known || !flights[1].known || flights[2].known || !flights[3].known {
		t.Errorf("returned c and b: got %+v", flights)
	}
}

func TestSettingTakesTheSmaller(t *testing.T) {
	t.Parallel()
	q := queueDetail{Arguments: map[string]any{"x-max-length": float64(10), "x-overflow": "drop-head"}, Policy: map[string]any{"max-length": float64(5), "delivery-limit": float64(3)}}
	for name, want := range map[string]int64{"max-length": 5, "delivery-limit": 3} {
		if n, ok := q.number(name); !ok || n != want {
			t.Errorf("%s: got %d, %v, want %d", name, n, ok, want)
		}
	}
	if _, ok := q.number("message-ttl"); ok {
		t.Error("message-ttl is set")
	}
	for version, want := range map[string]int64{"3.10.8": -1, "4.0.5": 20} {
		if n := deliveryLimit(queueDetail{Type: "quorum"}, version); n != want {
			t.Errorf("delivery limit of %s: got %d, want %d", version, n, want)
		}
	}
}

// What is held of a queue of large messages is bounded by their size, too.
func TestWindowFits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		messages, bytes int64
		want            int
	}{{0, 0, 1000}, {3, 48 << 20, 1000}, {1_000_000, 1 << 30, 1000}, {1000, 16000 << 20, 4}, {10, 10 * (128 << 20), 1}} {
		if got := fitting(1000, queueDetail{Messages: c.messages, Bytes: c.bytes}); got != c.want {
			t.Errorf("%d messages of %d bytes: window %d, want %d", c.messages, c.bytes, got, c.want)
		}
	}
}
