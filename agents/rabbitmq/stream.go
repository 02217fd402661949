package rabbitmq

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// A stream tap has a durable stream in place of the exclusive queue of a
// mirrored binding. The broker goes on filling it while no agent runs, so the
// tap resumes after its position and misses nothing that the stream's limits
// have not taken. The stream stays when the tap ends, on purpose: only a person
// knows whether its messages are still wanted. Leftovers lists it.
const (
	streamPrefix = "sb.tapstream."
	// argStreamID holds what tells a stream from one of the same name made later;
	// the broker keeps arguments it does not know.
	argStreamID  = "signalbox-id"
	headerOffset = "x-stream-offset"
)

// How long a new tap on an old stream waits for the stream's end: the broker
// starts with the last chunk, and what of it comes is from before the tap.
const (
	tailQuiet = 300 * time.Millisecond
	tailLimit = 3 * time.Second
)

// ownOffsets is how many offsets in a row the broker takes for itself.
const ownOffsets = 2

// streamed says that the channel is to be tapped with a stream.
func (a *Adapter) streamed(channel string) bool {
	return slices.ContainsFunc(a.cfg.StreamTap.Channels, func(p string) bool { return controlbus.MatchPattern(p, channel) })
}

// streamName is the same for every incarnation of the agent.
func (a *Adapter) streamName(queue string) string {
	agent, _, _ := strings.Cut(a.prefix, ".")
	name := streamPrefix + agent + "." + queue
	if len(name) > 255 { // of AMQP's short strings
		sum := sha256.Sum256([]byte(queue))
		name = strings.ToValidUTF8(name[:200], "") + "." + hex.EncodeToString(sum[:8])
	}
	return name
}

func (a *Adapter) streamPlan(channel string, target tapTarget) agents.TapPlan {
	s := a.cfg.StreamTap
	a.mu.Lock()
	version := a.product.Version
	a.mu.Unlock()
	plan := agents.TapPlan{
		Channel: channel, Technique: techStream, Resumable: true,
		Artefacts: []string{fmt.Sprintf("stream %s (durable, at most %d bytes and %s; it stays when the tap ends)", a.streamName(target.queue), s.MaxBytes, s.MaxAge)},
		Impact: []string{
			"The broker writes one more copy of each message to disk, on every replica of the stream, also while no agent reads it.",
			"Messages published straight to the queue through the default exchange are not seen, nor is what is in the queue already.",
			fmt.Sprintf("A binding that the queue gets later is mirrored within %s; one that it loses is dropped within the same time; while no agent runs, neither is.", a.cfg.Tap.PollInterval),
			"A stream does not keep headers that are tables or lists, but for x-death.",
			"To give the disk space back, take the channel out of stream_tap.channels and delete the stream.",
		},
		Data: target,
	}
	if major(version) < 4 {
		// Seen with 3.10: the broker drops what it dead-letters to a stream
		// without a word, whatever else the exchange routes it to.
		plan.Impact = append(plan.Impact, "Before RabbitMQ 4.0 dead-lettered messages do not reach a stream: do not tap dead letter channels this way.")
	}
	return plan
}

// streamLeftover describes a stream of this agent.
func (a *Adapter) streamLeftover(channel, stream string) string {
	if a.streamed(channel) {
		return fmt.Sprintf("stream %s (kept on purpose: stream_tap.channels has its queue)", stream)
	}
	return fmt.Sprintf("stream %s (not configured any more; delete it when its messages are not wanted)", stream)
}

// streamID is the identity of an existing stream. Another one of the name that
// we did not make is ErrConflict.
func (m *management) streamID(ctx context.Context, vhost, name string) (string, error) {
	var q struct {
		Arguments map[string]any `json:"arguments"`
	}
	err := m.do(ctx, http.MethodGet, "/api/queues/"+url.PathEscape(vhost)+"/"+url.PathEscape(name)+"?columns=arguments", nil, &q)
	if err != nil {
		return "", err
	}
	id, _ := q.Arguments[argStreamID].(string)
	if id == "" {
		return "", fmt.Errorf("%w: a queue called %s is there already and is not the agent's", controlbus.ErrConflict, name)
	}
	return id, nil
}

// openStream makes the stream unless it is there, and tells whether it is new.
func (t *tap) openStream(ctx context.Context) (created bool, err error) {
	t.origin.tap = t.a.streamName(t.target.queue)
	t.stream, err = t.api.streamID(ctx, t.target.vhost, t.origin.tap)
	switch {
	case errors.Is(err, controlbus.ErrNotFound):
	case err != nil:
		return false, err
	default:
		// Its bindings survived with it; mirror takes away those not wanted.
		bindings, err := t.api.bindings(ctx, t.target.vhost, t.origin.tap)
		if err != nil {
			return false, err
		}
		for _, b := range bindings {
			t.bound[b.id()] = b
		}
		return false, nil
	}
	id := rand.Text()
	s := t.a.cfg.StreamTap
	err = t.rpc(ctx, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(t.origin.tap, true, false, false, false, amqp.Table{
			amqp.QueueTypeArg:        amqp.QueueTypeStream,
			amqp.QueueMaxLenBytesArg: s.MaxBytes,
			"x-max-age":              strconv.FormatInt(int64(s.MaxAge/time.Second), 10) + "s",
			// Whole segments are dropped, never the one that is written to: many
			// small ones keep the stream near its limit.
			"x-stream-max-segment-size-bytes": min(max(s.MaxBytes/8, 1<<20), 500_000_000),
			argStreamID:                       id,
		})
		return err
	})
	if err != nil {
		return false, fmt.Errorf("declare %s: %w", t.origin.tap, err)
	}
	t.stream = id
	return true, nil
}

// position is the one after the message at offset.
func (t *tap) position(offset uint64) agents.Position {
	return agents.Position{Stream: t.stream, Seq: offset + 1}
}

// beginStream says where to consume from. settle means that the position has to
// be found out from the stream's end first.
func (t *tap) beginStream(ctx context.Context, created bool, from agents.Position) (offset any, settle bool, err error) {
	switch {
	case from == (agents.Position{}) && created:
		// Before the first binding: all that comes is after this.
		if err := t.out.Begin(ctx, agents.Position{Stream: t.stream}); err != nil {
			return nil, false, fmt.Errorf("begin: %w", err)
		}
	case from == (agents.Position{}):
		return "last", true, nil
	case from.Stream != t.stream:
		// Deleted and made anew since: what the old one still got is gone, and
		// how much that was nobody knows. All of the new one is unseen.
		t.out.LostByBroker(-1)
	default:
		t.next = from.Seq
	}
	return int64(t.next), false, nil
}

// settle reads the stream's last chunk, which is from before the tap, and makes
// what follows it the tap's beginning.
func (t *tap) settle(ctx context.Context, deliveries <-chan amqp.Delivery) error {
	limit := time.NewTimer(tailLimit)
	defer limit.Stop()
	quiet := time.NewTimer(tailQuiet)
	defer quiet.Stop()
	for reading := true; reading; {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return agents.ErrNotConnected
			}
			offset, err := takeOffset(&d)
			if err != nil {
				return err
			}
			t.next = offset + 1
			if err := t.conn.do(context.WithoutCancel(ctx), t.a.cfg.Timeout, func() error { return t.ch.Ack(d.DeliveryTag, false) }); err != nil {
				return err
			}
			quiet.Reset(tailQuiet)
		case <-quiet.C:
			reading = false
		case <-limit.C:
			reading = false // never quiet: what comes now is from now on
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := t.out.Begin(ctx, agents.Position{Stream: t.stream, Seq: t.next}); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	return nil
}

// takeOffset takes the offset out of a delivery's headers: it is the tap's
// stream's and no part of the message.
func takeOffset(d *amqp.Delivery) (uint64, error) {
	v, ok := d.Headers[headerOffset]
	if !ok {
		return 0, fmt.Errorf("delivery without %s: %w", headerOffset, controlbus.ErrInvalid)
	}
	delete(d.Headers, headerOffset)
	return uint64(integer(v)), nil
}

// putStream hands on one message of the stream.
func (t *tap) putStream(ctx context.Context, d *amqp.Delivery) error {
	offset, err := takeOffset(d)
	if err != nil {
		return err
	}
	if offset < t.next {
		return nil // the rest of a chunk that was read before
	}
	// Not every offset is a message: the broker's own notes take one or two where
	// a segment begins. So how much the limits took is not known, and right after
	// a pause any gap may be a loss.
	if gap := offset - t.next; gap > ownOffsets || gap > 0 && !t.reading {
		t.out.LostByBroker(-1)
	}
	t.next, t.reading = offset+1, true
	ev := event(d, t.origin, time.Now())
	ev.UID = controlbus.HashID("rabbitmq-stream", t.a.name, t.stream, strconv.FormatUint(offset, 10))
	ev.Position = int64(offset)
	return t.out.Put(ctx, ev, t.position(offset))
}
