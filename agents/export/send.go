package export

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
	"github.com/signalbox-dev/signalbox/storage/spool"
)

// verdict is what an attempt to send means for the batch.
type verdict int

const (
	retry   verdict = iota // the same request may succeed later
	suspect                // a server error that OTLP does not call retryable: a few tries
	refused                // never, as it is
)

// Limits of the tries at a batch that makes the collector fail in a way that
// is not declared to pass. Until both are reached the batch may be innocent.
const (
	suspectTries = 8
	suspectTime  = 10 * time.Minute
)

// send empties the spool in order until ctx ends.
func (x *Exporter) send(ctx context.Context) (err error) {
	x.mu.Lock()
	r := x.spool.Reader(x.next)
	x.mu.Unlock()
	defer func() { err = errors.Join(err, r.Close()) }()
	for {
		rec, err := r.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			// A file that cannot be read now may be readable later; what is
			// damaged the reader steps over by itself.
			x.fail(err)
			if !backoff.Sleep(ctx, time.Second) {
				return nil
			}
			continue
		}
		if !x.deliver(ctx, rec) {
			return nil
		}
	}
}

// deliver sends one record until it is acknowledged or set aside; false when
// ctx ended before.
func (x *Exporter) deliver(ctx context.Context, sr spool.Record) bool {
	rec, err := parseRecord(sr.Payload)
	if err != nil {
		x.setAside(sr, record{}, sr.Payload, err)
		return true
	}
	// The herd rule of all retries: spread, with the jitter after the cap.
	wait := backoff.Backoff{Base: time.Second, Cap: time.Minute}
	first := time.Now()
	for {
		began := time.Now()
		reply, v, after, err := x.post(ctx, sr.Position, rec)
		if err == nil {
			x.acknowledge(sr, rec, reply, time.Since(began))
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		x.fail(err)
		if v == refused || v == suspect && wait.Failures() >= suspectTries && time.Since(first) >= suspectTime {
			x.setAside(sr, rec, rec.body, err)
			return true
		}
		if wait.Failures() == 0 {
			x.log.WarnContext(ctx, "export fails; the spool keeps what comes", "error", err)
		}
		if !backoff.Sleep(ctx, max(wait.Next(), after)) {
			return false
		}
	}
}

func (x *Exporter) fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.status.Error = err.Error()
	x.counts.FailedRequests++
}

// acknowledge moves on behind a record that the collector has.
func (x *Exporter) acknowledge(sr spool.Record, rec record, rejected int64, took time.Duration) {
	x.mu.Lock()
	if x.status.Error != "" {
		x.log.Info("export goes on", "waiting", x.status.Records)
	}
	x.status.Error, x.status.SentLast = "", time.Now()
	x.latency = took
	if rec.signal == logs {
		x.counts.Exported += int64(rec.count) - rejected
		x.counts.Rejected += rejected
	}
	x.mu.Unlock()
	x.move(sr)
}

// move takes the record off the account and now and then off the disk.
func (x *Exporter) move(sr spool.Record) {
	x.mu.Lock()
	x.next = sr.Next
	x.status.Records--
	due := time.Since(x.saved) >= time.Second || x.status.Records == 0
	x.mu.Unlock()
	if due {
		if err := x.saveCheckpoint(); err != nil {
			// Without it the same batches are sent again after a restart, and
			// the collector recognises them.
			x.log.Warn("checkpoint could not be written", "error", err)
		}
	}
}

// setAside keeps a batch that will never be taken and goes on with the next:
// one bad batch must not hold up all others.
func (x *Exporter) setAside(sr spool.Record, rec record, content []byte, why error) {
	kept, err := x.quarantine(fmt.Sprintf("%020d%s.zst", int64(sr.Position), map[signal]string{logs: "-logs", metrics: "-metrics", records: "-records"}[rec.signal]), content)
	x.log.Error("batch refused for good and set aside", "reason", why, "messages", rec.count, "kept", kept, "error", err)
	x.mu.Lock()
	x.counts.Quarantined += int64(max(rec.count, 1))
	x.mu.Unlock()
	x.move(sr)
}

// post makes one attempt and says how many records the collector rejected.
func (x *Exporter) post(ctx context.Context, pos spool.Position, rec record) (rejected int64, v verdict, after time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, x.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, x.base.JoinPath(rec.signal.path()).String(), bytes.NewReader(rec.body))
	if err != nil {
		return 0, refused, 0, fmt.Errorf("export: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "zstd")
	req.Header.Set(controlbus.HeaderSender, x.sender)
	req.Header.Set(controlbus.HeaderBatch, strconv.FormatUint(uint64(pos), 10))
	req.Header.Set(controlbus.HeaderSentAt, strconv.FormatInt(time.Now().UnixNano(), 10))
	x.mu.Lock()
	x.counts.Requests++
	x.mu.Unlock()
	resp, err := x.client.Do(req)
	if err != nil {
		return 0, retry, 0, fmt.Errorf("export: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return 0, retry, 0, fmt.Errorf("export: read answer: %w", err)
	}
	if resp.StatusCode/100 == 2 {
		rejected, why := partial(rec.signal, answer)
		if rejected > 0 {
			x.log.WarnContext(ctx, "collector cannot store some of what was sent", "rejected", rejected, "reason", why)
		}
		return min(rejected, int64(rec.count)), retry, 0, nil
	}
	err = fmt.Errorf("export: collector answers %s: %s", resp.Status, cmp.Or(printable(answer), "no reason given"))
	return 0, judge(resp.StatusCode), retryAfter(resp.Header, time.Now()), err
}

// judge reads a status. Only those that speak of this very content refuse it:
// a wrong path, a proxy or a missing right is mended by people, and nothing
// must be thrown away until then.
func judge(status int) verdict {
	switch {
	case status == http.StatusBadRequest, status == http.StatusRequestEntityTooLarge, status == http.StatusUnprocessableEntity:
		return refused
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		return retry
	case status >= 500:
		return suspect
	}
	return retry
}

func partial(s signal, answer []byte) (rejected int64, why string) {
	if s == metrics {
		r := pmetricotlp.NewExportResponse()
		if r.UnmarshalProto(answer) != nil {
			return 0, ""
		}
		return r.PartialSuccess().RejectedDataPoints(), r.PartialSuccess().ErrorMessage()
	}
	r := plogotlp.NewExportResponse()
	if r.UnmarshalProto(answer) != nil {
		return 0, ""
	}
	return r.PartialSuccess().RejectedLogRecords(), r.PartialSuccess().ErrorMessage()
}

// printable makes a line of an answer, which may be protobuf.
func printable(b []byte) string {
	b = bytes.Map(func(r rune) rune {
		if r < ' ' || r == 0xFFFD || r == 0x7f {
			return -1
		}
		return r
	}, b)
	return string(b[:min(len(b), 200)])
}

// retryAfter reads the Retry-After header, seconds or a date; 0 when there is
// none. It is capped at ten minutes, so that a wrong clock cannot silence an
// agent for a day.
func retryAfter(h http.Header, now time.Time) time.Duration {
	const most = 10 * time.Minute
	v := h.Get("Retry-After")
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		return min(time.Duration(s)*time.Second, most)
	}
	if t, err := http.ParseTime(v); err == nil {
		return min(max(t.Sub(now), 0), most)
	}
	return 0
}
