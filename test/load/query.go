package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/storage/clickhouse"
)

// answer is what a question found, and the rows it read for that where the
// store tells.
type answer struct {
	found int
	read  uint64
}

// measured is one question, asked many times with other values.
type measured struct {
	name   string
	target time.Duration // p95; 0 for none
	ask    func(ctx context.Context, i int) (answer, error)
	want   int // rows each answer must have at least
}

func query(ctx context.Context, w world, s *clickhouse.Store, cpu cpuClock, only *regexp.Regexp, rounds int) error {
	all := storage.TimeRange{From: w.from, To: w.to.Add(time.Hour)}
	day := storage.TimeRange{From: w.to.Add(-24 * time.Hour), To: w.to}
	search := func(change func(q *storage.MessageQuery, i int)) func(context.Context, int) (answer, error) {
		return func(ctx context.Context, i int) (answer, error) {
			q := storage.MessageQuery{Range: all}
			change(&q, i)
			page, err := s.Messages(ctx, q)
			return answer{len(page.Messages), page.Scan.Rows}, err
		}
	}
	filtered := func(text string, within storage.TimeRange) func(context.Context, int) (answer, error) {
		return search(func(q *storage.MessageQuery, _ int) {
			f, err := filter.Parse(text, w.to)
			if err != nil {
				panic(err) // a constant of this file
			}
			q.Range, q.Filter = within, f
		})
	}
	channel := func(i int) controlbus.ChannelName { f := flows[i%len(flows)]; return f[i%perConversation] }
	return report(ctx, w, cpu, only, rounds, []measured{
		{"by message id", 50 * time.Millisecond, search(func(q *storage.MessageQuery, i int) { q.MessageID = w.messageID(i, 2) }), 1},
		{"by correlation id", 50 * time.Millisecond, search(func(q *storage.MessageQuery, i int) { q.CorrelationID = w.correlationID(i) }), perConversation},
		{"by trace id", 50 * time.Millisecond, search(func(q *storage.MessageQuery, i int) { t := w.traceID(i); q.TraceID = hex.EncodeToString(t[:]) }), perConversation},
		{"newest 100 of a channel", 50 * time.Millisecond, search(func(q *storage.MessageQuery, i int) { q.Channel = channel(i).Name }), 100},
		{"newest 100 overall", 50 * time.Millisecond, search(func(*storage.MessageQuery, int) {}), 100},
		{"24 h rate and p99 of a channel", 300 * time.Millisecond, func(ctx context.Context, i int) (answer, error) {
			c, err := s.ChannelSeries(ctx, storage.SeriesQuery{Channel: channel(i), Range: day, Step: 5 * time.Minute})
			return answer{found: min(len(c.Rate), len(c.P99))}, err
		}, 200},
		{"a message with its body", 50 * time.Millisecond, func(ctx context.Context, i int) (answer, error) {
			m, err := s.Message(ctx, controlbus.HashID("load", w.messageID(i, 1)), time.Time{})
			return answer{found: len(m.Body)}, err
		}, 100},
		{"a conversation", 100 * time.Millisecond, func(ctx context.Context, i int) (answer, error) {
			c, err := s.Conversation(ctx, storage.ConversationQuery{Range: all, Correlation: controlbus.CorrelationKey(w.correlationID(i)), TraceID: w.traceID(i)})
			return answer{len(c.Events), c.Scan.Rows}, err
		}, perConversation},
		{"all channels, 1 h", 100 * time.Millisecond, func(ctx context.Context, _ int) (answer, error) {
			c, err := s.Channels(ctx, storage.ChannelQuery{Range: storage.TimeRange{From: w.to.Add(-time.Hour), To: w.to}})
			return answer{found: len(c)}, err
		}, 40},
		{"all channels, 24 h", 300 * time.Millisecond, func(ctx context.Context, _ int) (answer, error) {
			c, err := s.Channels(ctx, storage.ChannelQuery{Range: day})
			return answer{found: len(c)}, err
		}, 40},
		{"totals, 1 h", 100 * time.Millisecond, func(ctx context.Context, _ int) (answer, error) {
			t, err := s.Totals(ctx, "", storage.TimeRange{From: w.to.Add(-time.Hour), To: w.to})
			return answer{found: int(t.Messages)}, err
		}, 1},
		{"by header value, 24 h", 0, search(func(q *storage.MessageQuery, i int) {
			q.HeaderName, q.HeaderValue = "x-producer", fmt.Sprintf("pod-%02d", i%30)
		}), 100},
		{"by body word, 24 h", 0, search(func(q *storage.MessageQuery, i int) { q.BodyWord = w.correlationID(i) }), 0},
		{"filter: a word, 24 h", 0, filtered("nothinglikethis", day), 0},
		{"filter: a phrase, 24 h", 0, filtered(`"nothing like this"`, day), 0},
		{"filter: a value in JSON, 24 h", 0, filtered("body.amount.value > 1e12", day), 0},
		{"filter: an expression over bodies, 24 h", 0, filtered("body ~ 'nothing[0-9]+this'", day), 0},
		{"filter: an expression over channels", 50 * time.Millisecond, filtered(`channel ~ '^orders' failed:true`, all), 100},
		{"failed only", 0, search(func(q *storage.MessageQuery, _ int) { q.FailedOnly = true }), 100},
		{"message id that does not exist", 50 * time.Millisecond, search(func(q *storage.MessageQuery, i int) { q.MessageID = fmt.Sprint("none-", i) }), 0},
	})
}

// pages measures the time a console takes for each of its pages, from request
// to the last byte.
func pages(ctx context.Context, base string, w world, only *regexp.Regexp, rounds int) error {
	client := &http.Client{Timeout: time.Minute}
	get := func(path string, values func(i int) url.Values) func(context.Context, int) (answer, error) {
		return func(ctx context.Context, i int) (answer, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path+"?"+values(i).Encode(), nil)
			if err != nil {
				return answer{}, err
			}
			resp, err := client.Do(req)
			if err != nil {
				return answer{}, err
			}
			defer resp.Body.Close()
			n, err := io.Copy(io.Discard, resp.Body)
			if err == nil && resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("%s answered %s", req.URL, resp.Status)
			}
			return answer{found: int(n)}, err
		}
	}
	span := func(v url.Values) url.Values {
		v.Set("from", w.from.Format(time.RFC3339))
		v.Set("to", w.to.Format(time.RFC3339))
		return v
	}
	channel := func(i int) controlbus.ChannelName { f := flows[i%len(flows)]; return f[i%perConversation] }
	const target = 100 * time.Millisecond
	return report(ctx, w, nil, only, rounds, []measured{
		{"overview", target, get("/", func(int) url.Values { return span(url.Values{}) }), 1000},
		{"channels", target, get("/channels", func(int) url.Values { return span(url.Values{}) }), 1000},
		{"messages", target, get("/messages", func(int) url.Values { return span(url.Values{}) }), 1000},
		{"messages of a channel", target, get("/messages", func(i int) url.Values { return span(url.Values{"q": {"channel:" + channel(i).Name}}) }), 1000},
		{"histogram of a filter on sums", target, get("/messages/histogram", func(i int) url.Values {
			return span(url.Values{"q": {"channel:" + channel(i).Name + " OR channel:" + channel(i+1).Name}})
		}), 1000},
		{"completion of a channel", target, get("/messages/complete", func(i int) url.Values { return url.Values{"q": {"channel:" + channel(i).Name[:3]}, "cursor": {"11"}} }), 50},
		{"messages by correlation", target, get("/messages", func(i int) url.Values { return span(url.Values{"q": {"correlation:" + w.correlationID(i)}}) }), 1000},
		{"live tap", target, get("/live", func(int) url.Values { return url.Values{} }), 1000},
		{"agents", target, get("/agents", func(int) url.Values { return url.Values{} }), 1000},
		{"message", target, func(ctx context.Context, i int) (answer, error) {
			uid := controlbus.HashID("load", w.messageID(i, 1)).String()
			return get("/messages/"+uid, func(int) url.Values { return url.Values{} })(ctx, i)
		}, 1000},
	})
}

// report asks every question and prints its times; it fails when a target is
// missed or an answer is short.
func report(ctx context.Context, w world, cpu cpuClock, only *regexp.Regexp, rounds int, questions []measured) error {
	missed := 0
	fmt.Printf("%-34s %9s %9s %9s %9s %9s %9s\n", "", "p50", "p95", "max", "cpu", "rows", "target")
	for _, q := range questions {
		if !only.MatchString(q.name) {
			continue
		}
		r := w.rand(0, 9)
		times := make([]time.Duration, rounds)
		read, before := uint64(0), cpu.now()
		for n := range times {
			i := r.IntN(w.conversations)
			start := time.Now()
			a, err := q.ask(ctx, i)
			times[n] = time.Since(start)
			if err != nil {
				return fmt.Errorf("%s: %w", q.name, err)
			}
			read += a.read
			if a.found < q.want {
				return fmt.Errorf("%s: conversation %d: found %d, want at least %d", q.name, i, a.found, q.want)
			}
		}
		used := (cpu.now() - before) / time.Duration(rounds)
		slices.Sort(times)
		p50, p95, most := times[rounds/2], times[rounds*95/100], times[rounds-1]
		target, verdict := "", ""
		if q.target > 0 {
			target = ms(q.target)
			if p95 > q.target {
				missed++
				verdict = "  MISSED"
			}
		}
		fmt.Printf("%-34s %9s %9s %9s %9s %9s %9s%s\n", q.name, ms(p50), ms(p95), ms(most), known(used, ms(used)), known(read, fmt.Sprint(read/uint64(rounds))), target, verdict)
	}
	if missed > 0 {
		return fmt.Errorf("%d targets missed", missed)
	}
	return nil
}

// known is text, or a dash where the figure is nought because nobody told it.
func known[T time.Duration | uint64](figure T, text string) string {
	if figure == 0 {
		return "-"
	}
	return text
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }
