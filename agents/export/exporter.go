package export

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
	"github.com/signalbox-dev/signalbox/controlbus/telemetry"
	"github.com/signalbox-dev/signalbox/storage/spool"
)

// Options is what an Exporter needs beside its configuration.
type Options struct {
	Config    Config
	Redaction Redaction
	Dir       string // of the spool
	URL       string // of the console, such as http://127.0.0.1:8470
	Agent     string // id
	Env       string
	Host      string
	Version   string
	HTTP      *http.Client // nil: one of its own
	Log       *slog.Logger
}

// Exporter owns the spool. It fills it from the queues and empties it towards
// the console.
type Exporter struct {
	cfg    Config
	dir    string
	base   *url.URL
	sender string
	client *http.Client
	log    *slog.Logger

	redactor *Redactor
	enc      *telemetry.Encoder
	plain    []byte // a request before compression, used again
	zip      *zstd.Encoder
	spool    *spool.Log
	memory   atomic.Int64
	wake     chan struct{}
	trimmed  chan struct{} // the spool may have room again

	saving sync.Mutex // one checkpoint is written at a time; held across the write

	mu        sync.Mutex
	queues    []*Queue
	positions map[string]Position // durable ones
	next      spool.Position      // of the oldest record not yet acknowledged
	covered   spool.Position      // positions hold everything before it
	status    controlbus.SpoolStatus
	counts    Counts
	latency   time.Duration // of the last acknowledged request
	saved     time.Time     // when the checkpoint was last written
	dirty     bool          // it must be written although nothing was sent
}

// Counts is what an exporter has done since it was made.
type Counts struct {
	Exported        int64 // messages acknowledged by the collector
	Rejected        int64 // messages the collector took but can never store
	Quarantined     int64 // messages in batches that the collector refused for good
	MetricsDropped  int64 // data points the full spool had no room for
	RecordsDropped  int64 // other log records the full spool had no room for
	DroppedAtStop   int64 // messages of taps that cannot resume, lost because the spool was full at the end
	Requests        int64
	FailedRequests  int64
	RecoveredTorn   int64 // bytes of an interrupted append, cut at start
	RecoveredDamage int64 // damaged stretches of the spool, set aside at start
}

// checkpoint is what survives beside the spool.
type checkpoint struct {
	Spool     string              `json:"spool"`
	Next      spool.Position      `json:"next"`
	Covered   spool.Position      `json:"covered"`
	Positions map[string]Position `json:"positions"`
}

// New opens the spool and reads where everything stood.
func New(o Options) (*Exporter, error) {
	if err := o.Config.Validate(); err != nil {
		return nil, fmt.Errorf("export: %w: %w", controlbus.ErrInvalid, err)
	}
	base, err := url.Parse(o.URL)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("export: %w: console address %q: want http://host:port", controlbus.ErrInvalid, o.URL)
	}
	redactor, err := NewRedactor(o.Redaction)
	if err != nil {
		return nil, err
	}
	// One encoder with a small window: the best of zstd for 512 KiB at a cost
	// of little memory.
	zip, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("export: zstd: %w", err)
	}
	x := &Exporter{
		cfg: o.Config, dir: o.Dir, base: base, client: o.HTTP, log: o.Log, redactor: redactor, zip: zip,
		enc:  telemetry.NewEncoder(telemetry.Origin{AgentID: o.Agent, Version: o.Version, Host: o.Host, Env: o.Env}),
		wake: make(chan struct{}, 1), trimmed: make(chan struct{}, 1), positions: map[string]Position{},
	}
	if x.client == nil {
		x.client = &http.Client{
			Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 1, IdleConnTimeout: 90 * time.Second, DisableCompression: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	log, rec, err := spool.Open(spool.Config{Dir: filepath.Join(o.Dir, "spool"), MaxBytes: o.Config.MaxBytes})
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	x.spool = log
	x.sender = o.Agent + "/" + log.ID().String()
	x.counts.RecoveredTorn, x.counts.RecoveredDamage = rec.TornBytes, int64(len(rec.Damaged))
	for _, d := range rec.Damaged {
		x.log.Error("spool is damaged; what could not be read was set aside", "reason", d.Reason, "kept", d.Kept)
	}
	if err := x.restore(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return x, nil
}

// restore rebuilds the positions from the checkpoint and the records after it.
func (x *Exporter) restore() error {
	b, err := spool.ReadFile(spool.OS, x.checkpointFile())
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("export: read checkpoint: %w", err)
	default:
		var c checkpoint
		// Only the first value counts: the file may be longer than what was
		// last written to it.
		if err := json.NewDecoder(bytes.NewReader(b)).Decode(&c); err != nil {
			x.log.Error("checkpoint cannot be read; the spool is sent again from its beginning", "error", err)
			break
		}
		x.positions = c.Positions
		if x.positions == nil {
			x.positions = map[string]Position{}
		}
		if c.Spool == x.spool.ID().String() {
			x.next, x.covered = c.Next, c.Covered
		}
	}
	err = x.spool.All(min(x.next, x.covered), func(r spool.Record) error {
		rec, err := parseRecord(r.Payload)
		if err != nil {
			return nil //nolint:nilerr // the sender sets it aside
		}
		if r.Position >= x.next {
			x.status.Records++
		}
		if r.Position >= x.covered {
			maps.Copy(x.positions, rec.positions)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("export: read spool: %w", err)
	}
	x.covered = x.spool.End()
	return nil
}

func (x *Exporter) checkpointFile() string { return filepath.Join(x.dir, "checkpoint.json") }

// saveCheckpoint writes it, and only then lets go of what was sent.
func (x *Exporter) saveCheckpoint() error {
	// A snapshot taken later must not be overtaken by an older one.
	x.saving.Lock()
	defer x.saving.Unlock()
	x.mu.Lock()
	c := checkpoint{Spool: x.spool.ID().String(), Next: x.next, Covered: x.covered, Positions: maps.Clone(x.positions)}
	x.saved, x.dirty = time.Now(), false
	x.mu.Unlock()
	b, err := json.Marshal(c)
	if err == nil {
		err = spool.WriteFile(spool.OS, x.checkpointFile(), b)
	}
	if err == nil {
		// Not what was sent before its positions were noted here.
		err = x.spool.Trim(min(c.Next, c.Covered))
	}
	if err != nil {
		return fmt.Errorf("export: checkpoint: %w", err)
	}
	select {
	case x.trimmed <- struct{}{}:
	default:
	}
	return nil
}

// Open makes the queue of one tap. key names its position across restarts.
func (x *Exporter) Open(key string) *Queue {
	x.mu.Lock()
	defer x.mu.Unlock()
	q := &Queue{
		key: key, memory: &x.memory, wake: x.wake, last: x.positions[key],
		limits: queueLimits{x.cfg.QueueMessages, x.cfg.QueueBytes, x.cfg.MemoryBytes},
	}
	for _, old := range x.queues {
		if _, forget := old.finished(); old.key == key && forget {
			q.last = Position{} // ended for good, not retired yet
		}
	}
	x.queues = append(x.queues, q)
	return q
}

// Begin makes durable where the queue's tap begins, for one that has no position
// yet: until its first message is in the spool nothing else would tell.
func (x *Exporter) Begin(q *Queue, pos Position) error {
	x.mu.Lock()
	x.positions[q.key] = pos
	x.dirty = true
	x.mu.Unlock()
	if err := x.saveCheckpoint(); err != nil {
		return err
	}
	q.begin(pos)
	return nil
}

// Run exports until ctx ends. Then it writes what the queues still hold to the
// spool and tries to send the spool for the configured grace; the rest is sent
// after the next start. The queues' taps should have stopped before.
func (x *Exporter) Run(ctx context.Context) error {
	sendCtx, stopSending := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSending()
	sent := make(chan error, 1)
	go func() { sent <- x.send(sendCtx) }()

	err := x.pack(ctx)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(x.cfg.Grace, time.Second))
	defer cancel()
	x.packAll(last)
	x.drain(last)
	stopSending()
	err = errors.Join(err, <-sent, x.saveCheckpoint())
	x.client.CloseIdleConnections()
	return errors.Join(err, x.zip.Close(), x.spool.Close())
}

// drain waits until everything was sent or ctx ends.
func (x *Exporter) drain(ctx context.Context) {
	for x.Status().Records > 0 && backoff.Sleep(ctx, 10*time.Millisecond) {
	}
}

// pack moves events from the queues into the spool, a batch at a time.
func (x *Exporter) pack(ctx context.Context) error {
	b := newBatch()
	linger := time.NewTimer(time.Hour)
	defer linger.Stop()
	for {
		for x.fill(b) { // full
			if !x.write(ctx, b) {
				return x.giveBack(ctx, b)
			}
		}
		if b.count > 0 && time.Since(b.began) >= x.cfg.Linger {
			if !x.write(ctx, b) {
				return x.giveBack(ctx, b)
			}
		}
		x.retire(b)
		wait := time.Hour
		if b.count > 0 {
			wait = max(x.cfg.Linger-time.Since(b.began), 0)
		}
		linger.Reset(wait)
		select {
		case <-x.wake:
			// A burst wakes once per message; a short pause makes it one turn.
			if b.count == 0 {
				b.began = time.Now()
			}
			if !backoff.Sleep(ctx, min(x.cfg.Linger, 5*time.Millisecond)) {
				return x.giveBack(ctx, b)
			}
		case <-linger.C:
		case <-ctx.Done():
			return x.giveBack(ctx, b)
		}
	}
}

// giveBack writes a batch that ctx interrupted with the time that is left.
func (x *Exporter) giveBack(ctx context.Context, b *batch) error {
	if b.count == 0 {
		return nil
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(x.cfg.Grace, time.Second))
	defer cancel()
	if !x.write(last, b) {
		x.lose(b)
	}
	return nil
}

// packAll writes what the queues hold.
func (x *Exporter) packAll(ctx context.Context) {
	b := newBatch()
	for more := true; more; {
		more = x.fill(b)
		if b.count > 0 && !x.write(ctx, b) {
			x.lose(b)
			return
		}
	}
	x.retire(b)
}

// lose counts a batch for which the spool had no room to the end. Messages of
// resumable taps are not lost: their positions did not move either.
func (x *Exporter) lose(b *batch) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.counts.DroppedAtStop += int64(b.count - b.resumable)
}

// batch is what goes into one record.
type batch struct {
	began     time.Time
	count     int
	resumable int
	positions map[string]Position
	record    []byte // once it is closed and waits for the spool
}

func newBatch() *batch { return &batch{positions: map[string]Position{}} }

// fill moves events into the batch, a few of each queue in turn, and says
// whether it is full.
func (x *Exporter) fill(b *batch) bool {
	const turn = 64
	x.mu.Lock()
	queues := slices.Clone(x.queues)
	x.mu.Unlock()
	for moved := true; moved; {
		moved = false
		for _, q := range queues {
			for range turn {
				if b.count >= x.cfg.BatchMessages || x.enc.Size() >= x.cfg.BatchBytes {
					return true
				}
				it, ok := q.take()
				if !ok {
					break
				}
				moved = true
				if b.count == 0 {
					b.began = time.Now()
				}
				b.count++
				if it.pos != (Position{}) {
					b.positions[q.key] = it.pos
					b.resumable++
				}
				x.redactor.Apply(it.ev, it.policy, it.maxBody)
				x.enc.Append(it.ev)
			}
		}
	}
	return false
}

// write puts the batch into the spool, waiting for room, and empties it. False
// means that ctx ended before; the batch is kept.
func (x *Exporter) write(ctx context.Context, b *batch) bool {
	if b.count == 0 {
		return true
	}
	if b.record == nil {
		x.plain = x.enc.Request(x.plain[:0])
		rec, err := appendRecord(nil, record{logs, b.count, b.positions, x.zip.EncodeAll(x.plain, nil)})
		if err != nil {
			x.log.ErrorContext(ctx, "batch cannot be encoded", "error", err)
			x.lose(b)
			*b = *newBatch()
			return true
		}
		b.record = rec
	}
	if !x.appendRecord(ctx, b.record) {
		return false
	}
	x.mu.Lock()
	maps.Copy(x.positions, b.positions)
	x.covered = x.spool.End()
	x.mu.Unlock()
	*b = *newBatch()
	return true
}

// appendRecord retries until the spool takes the record or ctx ends.
func (x *Exporter) appendRecord(ctx context.Context, rec []byte) bool {
	wait := backoff.Backoff{Base: 100 * time.Millisecond, Cap: 5 * time.Second}
	for {
		err := x.append(ctx, rec)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if wait.Failures() == 0 {
			x.log.WarnContext(ctx, "spool takes no more; taps that can wait do, others drop", "error", err)
		}
		t := time.NewTimer(wait.Next())
		select {
		case <-x.trimmed:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// retire lets go of queues whose taps have ended, once what they held is not
// only in the open batch b: writing it would bring back their positions.
func (x *Exporter) retire(b *batch) {
	x.mu.Lock()
	newest := map[string]*Queue{} // a tap asked for again has a position of its own
	for _, q := range x.queues {
		newest[q.key] = q
	}
	x.queues = slices.DeleteFunc(x.queues, func(q *Queue) bool {
		done, forget := q.finished()
		forget = forget && newest[q.key] == q
		if _, open := b.positions[q.key]; open {
			return false
		}
		if done && forget {
			delete(x.positions, q.key)
			x.dirty = true
		}
		return done
	})
	dirty := x.dirty
	x.mu.Unlock()
	if dirty {
		if err := x.saveCheckpoint(); err != nil {
			x.log.Error("ended taps could not be recorded", "error", err)
		}
	}
}

// Metrics spools a set of metrics for the console. It does not wait: what the
// spool has no room for is dropped and counted, the next observation says the
// same again.
func (x *Exporter) Metrics(ctx context.Context, md pmetric.Metrics) error {
	n := md.DataPointCount()
	if n == 0 {
		return nil
	}
	var m pmetric.ProtoMarshaler
	b, err := m.MarshalMetrics(md)
	if err != nil {
		return fmt.Errorf("export: encode metrics: %w", err)
	}
	rec, err := appendRecord(nil, record{signal: metrics, count: n, body: x.zip.EncodeAll(b, nil)})
	if err != nil {
		return err
	}
	if err := x.append(ctx, rec); err != nil {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.counts.MetricsDropped += int64(n)
		return fmt.Errorf("export: metrics: %w", err)
	}
	return nil
}

// Logs spools log records of the agent's own, such as what became of each
// message of a command. Like Metrics it does not wait for room.
func (x *Exporter) Logs(ctx context.Context, ld plog.Logs) error {
	n := ld.LogRecordCount()
	if n == 0 {
		return nil
	}
	var m plog.ProtoMarshaler
	b, err := m.MarshalLogs(ld)
	if err != nil {
		return fmt.Errorf("export: encode logs: %w", err)
	}
	rec, err := appendRecord(nil, record{signal: records, count: n, body: x.zip.EncodeAll(b, nil)})
	if err != nil {
		return err
	}
	if err := x.append(ctx, rec); err != nil {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.counts.RecordsDropped += int64(n)
		return fmt.Errorf("export: logs: %w", err)
	}
	return nil
}

// Close gives the spool back without having run: an agent that cannot be made
// must not keep it locked.
func (x *Exporter) Close() error { return errors.Join(x.zip.Close(), x.spool.Close()) }

// append counts the record before the sender can see it.
func (x *Exporter) append(ctx context.Context, rec []byte) error {
	x.addRecords(1)
	_, err := x.spool.Append(ctx, rec)
	if err != nil {
		x.addRecords(-1)
	}
	return err
}

func (x *Exporter) addRecords(n int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.status.Records += n
}

// Status is the spool as the agent reports it.
func (x *Exporter) Status() controlbus.SpoolStatus {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.status
	s.Bytes, s.MaxBytes = x.spool.Pending(x.next), x.cfg.MaxBytes
	s.Dropped = x.counts.DroppedAtStop + x.counts.Quarantined
	return s
}

// Counts returns the present counts and the last request's latency.
func (x *Exporter) Counts() (Counts, time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.counts, x.latency
}

// quarantine keeps what the collector refuses for good, for people to look at,
// as long as it does not take more than a tenth of the spool.
func (x *Exporter) quarantine(name string, b []byte) (kept string, err error) {
	dir := filepath.Join(x.dir, "quarantine")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	size := int64(len(b))
	for _, e := range entries {
		if info, err := e.Info(); err == nil && !strings.HasSuffix(e.Name(), ".tmp") {
			size += info.Size()
		}
	}
	if size > x.cfg.MaxBytes/10 {
		return "", fmt.Errorf("%w: quarantine has reached its limit", controlbus.ErrTooLarge)
	}
	kept = filepath.Join(dir, name)
	return kept, spool.WriteFile(spool.OS, kept, b)
}
