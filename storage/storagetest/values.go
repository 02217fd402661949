package storagetest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/storage"
)

func fieldValues(t *testing.T, s Store) {
	at := base()
	b := s.NewBatch()
	for i, channel := range []string{"orders.new", "orders.new", "ORDERS.paid", "back-orders", "mail", ""} {
		e := &controlbus.MessageEvent{
			UID: uid("values", i), Time: at.Add(time.Duration(i) * time.Minute).UnixNano(), Env: []string{"prod", "test"}[i/3], System: "nats", Broker: "n1", Destination: channel, Service: "shop",
			Headers: []controlbus.Header{{Key: "x-tenant", Value: "a"}, {Key: "x-tenant", Value: "b"}, {Key: "odd ' name", Value: "c"}, {Key: "", Value: "d"}},
		}
		if i == 1 {
			e.ErrorType, e.DeadLetterReason, e.DeadLetterSource, e.ConsumerGroup, e.Tap, e.ContentType, e.ContentEncoding = "TimeoutError", "rejected", "orders", "billing", "tap-1", "text/plain", "gzip"
			e.Headers = []controlbus.Header{{Key: "Tenant", Value: "x"}}
		}
		b.AppendMessage(e)
		b.AppendPane(&storage.Pane{Time: e.Time - e.Time%1e10, Env: e.Env, System: e.System, Broker: e.Broker, Destination: channel, Service: e.Service, Op: controlbus.OpTap, Count: 1})
	}
	if err := s.Write(t.Context(), "values", b); err != nil {
		t.Fatal(err)
	}
	ask := func(q storage.ValuesQuery) []string {
		t.Helper()
		if q.Range == (storage.TimeRange{}) {
			q.Range = around(at)
		}
		list, err := s.FieldValues(t.Context(), q)
		if err != nil {
			t.Fatalf("%+v: %v", q, err)
		}
		var out []string
		for _, v := range list {
			if v.Messages == 0 {
				t.Errorf("%+v: %q of no message", q, v.Value)
			}
			out = append(out, v.Value)
		}
		return out
	}
	for _, tc := range []struct {
		q    storage.ValuesQuery
		want []string
	}{
		{storage.ValuesQuery{Field: "channel"}, []string{"orders.new", "ORDERS.paid", "back-orders", "mail"}},
		{storage.ValuesQuery{Field: "channel", Part: "Ord"}, []string{"orders.new", "ORDERS.paid", "back-orders"}},
		{storage.ValuesQuery{Field: "channel", Part: "o", Env: "test"}, []string{"back-orders"}},
		{storage.ValuesQuery{Field: "channel", Limit: 1}, []string{"orders.new"}},
		{storage.ValuesQuery{Field: "channel", Part: "%"}, nil},
		{storage.ValuesQuery{Field: "channel", Range: storage.TimeRange{From: at.AddDate(0, 0, -3), To: at.AddDate(0, 0, -2)}}, nil},
		{storage.ValuesQuery{Field: "env"}, []string{"prod", "test"}},
		{storage.ValuesQuery{Field: "system"}, []string{"nats"}},
		{storage.ValuesQuery{Field: "broker", Part: "'"}, nil},
		{storage.ValuesQuery{Field: "service"}, []string{"shop"}},
		{storage.ValuesQuery{Field: "error"}, []string{"TimeoutError"}},
		{storage.ValuesQuery{Field: "dead_letter.reason"}, []string{"rejected"}},
		{storage.ValuesQuery{Field: "dead_letter.source"}, []string{"orders"}},
		{storage.ValuesQuery{Field: "group"}, []string{"billing"}},
		{storage.ValuesQuery{Field: "tap"}, []string{"tap-1"}},
		{storage.ValuesQuery{Field: "content_type", Part: "plain"}, []string{"text/plain"}},
		{storage.ValuesQuery{Field: "content_encoding"}, []string{"gzip"}},
		{storage.ValuesQuery{Field: "header."}, []string{"x-tenant", "odd ' name", "Tenant"}},
		{storage.ValuesQuery{Field: "header.", Part: "ten"}, []string{"Tenant", "x-tenant"}},
	} {
		if diff := cmp.Diff(tc.want, ask(tc.q)); diff != "" {
			t.Errorf("%+v: -want +got\n%s", tc.q, diff)
		}
	}
	for _, f := range filter.Fields() {
		if f.Lookup {
			ask(storage.ValuesQuery{Field: f.Name})
		}
	}
	if _, err := s.FieldValues(t.Context(), storage.ValuesQuery{Field: "body", Range: around(at)}); !isInvalid(err) {
		t.Errorf("values of the body: %v, want ErrInvalid", err)
	}
}
