package controlbus_test

import (
	"reflect"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// full returns an event with every field set, its strings views into buf.
func full(buf []byte) *controlbus.MessageEvent {
	ev := &controlbus.MessageEvent{
		Headers:  []controlbus.Header{{Key: view(buf), Value: view(buf)}, {Key: view(buf), Value: view(buf)}},
		Redacted: []string{view(buf)},
		Body:     buf,
	}
	v := reflect.ValueOf(ev).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.String {
			f.SetString(view(buf))
		}
	}
	return ev
}

func view(b []byte) string { return unsafe.String(&b[0], len(b)) }

func TestCloneSharesNothing(t *testing.T) {
	t.Parallel()
	buf := []byte("before")
	got := full(buf).Clone()
	copy(buf, "AFTER!")
	if diff := cmp.Diff(full([]byte("before")), got); diff != "" {
		t.Errorf("a clone changed with its original (-want +got):\n%s", diff)
	}
}

func TestMatchPattern(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"orders", "orders", true},
		{"orders", "orders.new", false},
		{"*", "", true},
		{"*", "anything/at.all", true},
		{"orders.*", "orders.", true},
		{"orders.*", "orders.new.eu", true},
		{"orders.*", "xorders.new", false},
		{"*.dlq", "orders.dlq", true},
		{"*.dlq", "orders.dlq2", false},
		{"a*b*c", "aXbYc", true},
		{"a*b*c", "aXcYb", false},
		{"a*a", "a", false},
		{"**", "x", true},
		{"", "", true},
		{"", "x", false},
	} {
		if got := controlbus.MatchPattern(c.pattern, c.name); got != c.want {
			t.Errorf("MatchPattern(%q, %q): got %v, want %v", c.pattern, c.name, got, c.want)
		}
	}
}

func TestIDsAreSeparatedByTheirParts(t *testing.T) {
	t.Parallel()
	if controlbus.HashID("ab", "c") == controlbus.HashID("a", "bc") {
		t.Error(`HashID("ab", "c") == HashID("a", "bc")`)
	}
	id := controlbus.HashID("x")
	got, err := controlbus.ParseID(id.String())
	if err != nil || got != id {
		t.Errorf("ParseID(%s): got %v, %v", id, got, err)
	}
	for _, bad := range []string{"", "12", id.String() + "0", "zz" + id.String()[2:]} {
		if _, err := controlbus.ParseID(bad); err == nil {
			t.Errorf("ParseID(%q): got no error", bad)
		}
	}
}

func BenchmarkClone(b *testing.B) {
	ev := full([]byte("some text of usual length"))
	b.ReportAllocs()
	for b.Loop() {
		ev.Clone()
	}
}
