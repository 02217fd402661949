// Package ingest carries requests from the durable queue to the sink, in blocks
// that are written exactly once. A block is a fixed range of the queue: the
// range is on disk before its first write begins, so after a crash the same
// bytes are written under the same token, and the store drops what it has.
//
//	queue ──▶ build: decode, append to a batch ──▶ write: token, retry ──▶ checkpoint
//
// Building the next block overlaps writing this one; nothing else does.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
	"github.com/signalbox-dev/signalbox/storage/spool"
)

// Config is the "ingest" section of the configuration file.
type Config struct {
	MaxRows   int           `yaml:"max_rows"`   // of a block
	MaxBytes  int           `yaml:"max_bytes"`  // of a block
	MaxDelay  time.Duration `yaml:"max_delay"`  // from a block's first request to its write
	RetryMost time.Duration `yaml:"retry_most"` // longest pause between attempts
	// Quarantine is where blocks go that the store refuses for good.
	Quarantine string `yaml:"quarantine"`
}

// DefaultConfig suits the embedded store; a cluster likes blocks four times as large.
func DefaultConfig() Config {
	return Config{MaxRows: 20_000, MaxBytes: 8 << 20, MaxDelay: time.Second, RetryMost: 15 * time.Second, Quarantine: ".data/quarantine"}
}

// Validate reports every problem at once, each under its own key.
func (c Config) Validate() error {
	var errs []error
	if c.MaxRows <= 0 {
		errs = append(errs, fmt.Errorf("max_rows: want a positive number, have %d", c.MaxRows))
	}
	if c.MaxBytes <= 0 {
		errs = append(errs, fmt.Errorf("max_bytes: want a positive number, have %d", c.MaxBytes))
	}
	if c.MaxDelay <= 0 || c.MaxDelay > time.Minute {
		errs = append(errs, fmt.Errorf("max_delay: want more than 0 and at most 1m, have %v", c.MaxDelay))
	}
	if c.RetryMost < time.Second {
		errs = append(errs, fmt.Errorf("retry_most: want at least 1s, have %v", c.RetryMost))
	}
	if c.Quarantine == "" {
		errs = append(errs, errors.New("quarantine: want a directory, have none"))
	}
	return errors.Join(errs...)
}

// Ingest is the one reader of a queue. Run it once.
type Ingest struct {
	cfg   Config
	queue *collector.Queue
	sink  collector.Sink
	log   *slog.Logger

	rows, blocks, retries, quarantined *metrics.Counter

	mu    sync.Mutex
	stats Stats
}

// Stats tell how ingest is doing.
type Stats struct {
	Rows, Blocks, Retries uint64
	Quarantined           uint64    // blocks the store refused for good
	PendingBytes          int64     // acknowledged and not stored yet
	Oldest                time.Time // receipt of the oldest request not stored yet; zero when there is none
	LastWrite             time.Time
	Error                 string // why the block at hand cannot be written; empty when it can
	ErrorSince            time.Time
}

// New starts nothing.
func New(cfg Config, queue *collector.Queue, sink collector.Sink, set *metrics.Set, log *slog.Logger) *Ingest {
	in := &Ingest{
		cfg: cfg, queue: queue, sink: sink, log: log,
		rows:        set.NewCounter("signalbox_ingest_rows_total"),
		blocks:      set.NewCounter("signalbox_ingest_blocks_total"),
		retries:     set.NewCounter("signalbox_ingest_retries_total"),
		quarantined: set.NewCounter("signalbox_ingest_blocks_quarantined_total"),
	}
	set.NewGauge("signalbox_ingest_lag_seconds", func() float64 {
		if oldest := in.Stats().Oldest; !oldest.IsZero() {
			return time.Since(oldest).Seconds()
		}
		return 0
	})
	return in
}

// Stats returns the present figures.
func (in *Ingest) Stats() Stats {
	in.mu.Lock()
	defer in.mu.Unlock()
	s := in.stats
	s.Rows, s.Blocks, s.Retries, s.Quarantined = in.rows.Get(), in.blocks.Get(), in.retries.Get(), in.quarantined.Get()
	return s
}

// Run carries requests until ctx ends. A write that has begun gets a few
// seconds more to end. It returns an error only when the queue itself fails.
func (in *Ingest) Run(ctx context.Context) error {
	built := make(chan *block)
	free := make(chan *block, 2)
	for range 2 {
		free <- &block{batch: in.sink.NewBatch()}
	}
	buildErr := make(chan error, 1)
	go func() {
		defer close(built)
		buildErr <- in.build(ctx, built, free)
	}()
	writeErr := in.writeAll(ctx, built, free)
	err := errors.Join(<-buildErr, writeErr)
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, spool.ErrClosed)) {
		return nil
	}
	return err
}

// block is a range of the queue on its way to the store.
type block struct {
	batch    collector.Batch
	from, to spool.Position
	marks    map[string]collector.Mark
	oldest   time.Time
}

func (b *block) reset(from spool.Position) {
	b.batch.Reset()
	b.from, b.to, b.oldest = from, from, time.Time{}
	b.marks = make(map[string]collector.Mark)
}

// build fills blocks and hands them over, one ahead of the write.
func (in *Ingest) build(ctx context.Context, built chan<- *block, free <-chan *block) error {
	at := in.queue.Checkpoint()
	reader := in.queue.Reader(at.Position)
	defer reader.Close()
	dec := newDecoder()
	// Damage may have cut the queue before the end of the range that was being
	// written; what is left of it must not wait for more.
	next, fixed := at.Position, min(at.Writing, in.queue.End())
	if fixed <= next {
		fixed = 0
	}
	seen := maps.Clone(at.Marks)
	for {
		var b *block
		select {
		case b = <-free:
		case <-ctx.Done():
			return nil
		}
		b.reset(next)
		if err := in.fill(ctx, b, reader, dec, seen, fixed); err != nil {
			return err
		}
		fixed = 0
		next = b.to
		select {
		case built <- b:
		case <-ctx.Done():
			return nil
		}
	}
}

// fill reads requests into a block until it is full, or, where fixed is set,
// until exactly there: the range whose write was begun before a crash. seen are
// the senders' batches so far: one that is in the queue twice, because a disk
// brought back what it had failed to write, is stored once.
func (in *Ingest) fill(ctx context.Context, b *block, reader *collector.QueueReader, dec *decoder, seen map[string]collector.Mark, fixed spool.Position) error {
	wait, enough := context.WithCancel(ctx)
	defer enough()
	for {
		e, err := reader.Next(wait)
		if err != nil {
			if ctx.Err() == nil && wait.Err() != nil {
				break // the block waited long enough
			}
			return err
		}
		if b.oldest.IsZero() {
			b.oldest = e.ReceivedAt
			in.waiting(b)
			if fixed == 0 {
				defer time.AfterFunc(in.cfg.MaxDelay, enough).Stop()
			}
		}
		b.to = e.Next
		numbered := e.Err == nil && e.Sender != ""
		if !numbered || e.Batch > seen[e.Sender].Batch {
			dec.request(b.batch, e)
		}
		if numbered {
			m := collector.Mark{Batch: max(e.Batch, seen[e.Sender].Batch), At: e.ReceivedAt}
			seen[e.Sender], b.marks[e.Sender] = m, m
		}
		if fixed != 0 {
			if b.to >= fixed {
				break
			}
		} else if b.batch.Rows() >= in.cfg.MaxRows || b.batch.Bytes() >= in.cfg.MaxBytes {
			break
		}
	}
	dec.finish(b.batch)
	return nil
}

// writeAll writes blocks in order and moves the checkpoint.
func (in *Ingest) writeAll(ctx context.Context, built <-chan *block, free chan<- *block) error {
	begun := in.queue.Checkpoint().Writing
	for b := range built {
		if begun != b.to {
			if err := in.begin(ctx, b.to); err != nil {
				return err
			}
		}
		if err := in.write(ctx, b); err != nil {
			return err
		}
		if err := in.retry(ctx, "save the checkpoint", func() error { return in.queue.Stored(b.to, maps.Clone(b.marks), 0) }); err != nil {
			return err
		}
		begun = 0
		in.stored(b)
		free <- b
	}
	return nil
}

func (in *Ingest) begin(ctx context.Context, to spool.Position) error {
	return in.retry(ctx, "save the checkpoint", func() error { return in.queue.Begin(to) })
}

// write stores a block, however long it takes. What the store refuses for good
// goes to quarantine, so that it cannot hold up everything behind it.
func (in *Ingest) write(ctx context.Context, b *block) error {
	token := fmt.Sprintf("%s/%d-%d", in.queue.ID(), b.from, b.to)
	refusals := 0
	for again := in.backoff(); ; {
		writeCtx, cancel := graceful(ctx, 5*time.Second)
		err := in.sink.Write(writeCtx, token, b.batch)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, controlbus.ErrInvalid) && !errors.Is(err, controlbus.ErrUnavailable) {
			if refusals++; refusals >= 3 {
				return in.quarantine(ctx, b, err)
			}
		} else {
			refusals = 0
		}
		in.retries.Inc()
		in.failing(err)
		if !backoff.Sleep(ctx, again.Next()) {
			return ctx.Err()
		}
	}
}

func (in *Ingest) backoff() *backoff.Backoff {
	return &backoff.Backoff{Base: 100 * time.Millisecond, Cap: in.cfg.RetryMost, Floor: 50 * time.Millisecond}
}

// quarantine copies the block's requests into a file of their own.
func (in *Ingest) quarantine(ctx context.Context, b *block, cause error) error {
	name := filepath.Join(in.cfg.Quarantine, fmt.Sprintf("%s-%d-%d.requests", in.queue.ID(), b.from, b.to))
	if err := in.retry(ctx, "write to quarantine", func() error { return in.copyRange(ctx, name, b.from, b.to) }); err != nil {
		return err
	}
	in.quarantined.Inc()
	in.log.ErrorContext(ctx, "the store refuses a block for good; its requests are in quarantine", "file", name, "rows", b.batch.Rows(), "error", cause)
	return nil
}

// copyRange writes the entries of a range to a file as a spool of its own, so
// that the same reader reads it.
func (in *Ingest) copyRange(ctx context.Context, dir string, from, to spool.Position) (err error) {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	out, _, err := spool.Open(spool.Config{Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	reader := in.queue.Reader(from)
	defer reader.Close()
	for at := from; at < to; {
		e, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		if _, err := out.Append(ctx, e.Raw); err != nil {
			return err
		}
		at = e.Next
	}
	return nil
}

// retry repeats what the disk may refuse for a while.
func (in *Ingest) retry(ctx context.Context, what string, f func() error) error {
	for again := in.backoff(); ; {
		err := f()
		if err == nil {
			return nil
		}
		in.failing(fmt.Errorf("%s: %w", what, err))
		if !backoff.Sleep(ctx, again.Next()) {
			return ctx.Err()
		}
	}
}

func (in *Ingest) waiting(b *block) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.stats.Oldest.IsZero() {
		in.stats.Oldest = b.oldest
	}
	in.stats.PendingBytes = in.queue.Pending(b.from)
}

func (in *Ingest) stored(b *block) {
	in.rows.Add(b.batch.Rows())
	in.blocks.Inc()
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.stats.Error != "" {
		in.log.Info("writing to the store again", "after", time.Since(in.stats.ErrorSince))
	}
	in.stats.Oldest, in.stats.Error, in.stats.ErrorSince = time.Time{}, "", time.Time{}
	in.stats.LastWrite = time.Now()
	if in.stats.PendingBytes = in.queue.Pending(b.to); in.stats.PendingBytes > 0 {
		in.stats.Oldest = b.oldest
	}
}

// failing notes why nothing is written; it is logged when it begins or changes.
func (in *Ingest) failing(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.stats.Error != err.Error() {
		in.log.Warn("cannot write to the store; trying again", "error", err)
	}
	if in.stats.Error == "" {
		in.stats.ErrorSince = time.Now()
	}
	in.stats.Error = err.Error()
}

// graceful is a context that ends some time after ctx does.
func graceful(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(grace):
			cancel()
		case <-out.Done():
		}
	})
	return out, func() { stop(); cancel() }
}
