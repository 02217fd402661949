package audit

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// record is an entry of an export.
type record struct {
	Seq       int64     `json:"seq"`
	At        time.Time `json:"at"`
	ActorKind string    `json:"actor_kind"`
	ActorID   string    `json:"actor_id,omitempty"`
	Actor     string    `json:"actor"`
	Code      string    `json:"code"`
	Target    string    `json:"target,omitempty"`
	Env       string    `json:"env,omitempty"`
	Channel   string    `json:"channel,omitempty"`
	Refused   bool      `json:"refused"`
	Detail    string    `json:"detail,omitempty"`
	Address   string    `json:"address,omitempty"`
}

// export writes what the page's filters select as a file, newest first. It is
// recorded before it leaves.
func (p *Pages) export(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.BeginOver(r, history)
	if err != nil {
		return err
	}
	q, err := p.query(v)
	if err != nil {
		return err
	}
	format := v.Form.Get("format")
	if format != "csv" && format != "ndjson" {
		return fmt.Errorf("%w: format %.20q: want csv or ndjson", controlbus.ErrInvalid, format)
	}
	if err := p.trail.Record(r.Context(), access.Event{Code: access.EventExport, Target: "audit trail", Env: q.Env, Detail: access.Clip(r.URL.RawQuery, 500)}); err != nil {
		return fmt.Errorf("exports are recorded, and that fails now: %w: %w", controlbus.ErrUnavailable, err)
	}
	q.Limit = 500
	first, err := p.trail.Events(r.Context(), q)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Disposition", `attachment; filename="signalbox-audit-`+v.Now.UTC().Format("20060102-150405")+"."+format+`"`)
	var put func(e *access.Event) error
	flush := func() error { return nil }
	if format == "csv" {
		h.Set("Content-Type", "text/csv; charset=utf-8")
		out := csv.NewWriter(w)
		if err := out.Write([]string{"seq", "at", "actor_kind", "actor_id", "actor", "code", "target", "env", "channel", "refused", "detail", "address"}); err != nil {
			return nil //nolint:nilerr // the reader went away
		}
		put = func(e *access.Event) error {
			return out.Write([]string{fmt.Sprint(e.Seq), e.At.UTC().Format(time.RFC3339Nano), cell(string(e.Actor.Kind)), cell(e.Actor.ID), cell(e.Actor.Name), cell(e.Code), cell(e.Target), cell(e.Env), cell(e.Channel), fmt.Sprint(e.Refused), cell(e.Detail), cell(e.Address)})
		}
		flush = func() error { out.Flush(); return out.Error() }
	} else {
		h.Set("Content-Type", "application/x-ndjson")
		out := json.NewEncoder(w)
		put = func(e *access.Event) error {
			return out.Encode(record{e.Seq, e.At.UTC(), string(e.Actor.Kind), e.Actor.ID, e.Actor.Name, e.Code, e.Target, e.Env, e.Channel, e.Refused, e.Detail, e.Address})
		}
	}
	for n, page := 0, first; len(page) > 0; {
		for i := range page {
			if err := put(&page[i]); err != nil {
				return nil //nolint:nilerr // the reader went away
			}
		}
		if err := flush(); err != nil {
			return nil //nolint:nilerr // the reader went away
		}
		if n += len(page); len(page) < q.Limit || n >= maxExport {
			return nil
		}
		q.Before = page[len(page)-1].Seq
		if page, err = p.trail.Events(r.Context(), q); err != nil {
			panic(http.ErrAbortHandler) // a file that ends early must not look whole
		}
	}
	return nil
}

// cell is text that no spreadsheet takes for a formula.
func cell(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	if s != "" && strings.ContainsRune("=+-@\t\r\n", rune(s[0])) {
		return "'" + s
	}
	return s
}
