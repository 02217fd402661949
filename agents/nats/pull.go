package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	pullExpires   = 5 * time.Second
	pullHeartbeat = time.Second
)

// pullRequest asks a consumer for its next messages. The library's Fetch bounds
// a batch by count or by bytes; a tap needs both, because it holds what it
// asked for while the agent's ring is full.
type pullRequest struct {
	Expires   time.Duration `json:"expires"`
	Batch     int           `json:"batch"`
	MaxBytes  int64         `json:"max_bytes,omitempty"`
	Heartbeat time.Duration `json:"idle_heartbeat,omitempty"`
}

// pull hands on what the consumer delivers, batch by batch, until the order of
// deliveries breaks (errAgain), the connection does, or ctx ends.
func (r *streamReader) pull(ctx context.Context, consumer string) error {
	nc := r.js.Conn()
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox + ".*")
	if err != nil {
		return sentinel(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	api := "$JS.API"
	if r.a.cfg.Domain != "" {
		api = "$JS." + r.a.cfg.Domain + ".API"
	}
	subject := api + ".CONSUMER.MSG.NEXT." + r.stream + "." + consumer
	// A message larger than the budget would never come.
	budget := max(r.a.cfg.Tap.BatchBytes, nc.MaxPayload()+64<<10)

	var delivered uint64 // consumer sequence
	oversize := false
	for n := 0; ; n++ {
		req := pullRequest{Expires: pullExpires, Batch: r.a.cfg.Tap.Batch, MaxBytes: budget, Heartbeat: pullHeartbeat}
		if oversize {
			req.Batch, req.MaxBytes = 1, 0
		}
		body, err := json.Marshal(req)
		if err != nil {
			return err
		}
		reply := inbox + "." + strconv.Itoa(n) // statuses of an earlier pull are not this one's
		if err := nc.PublishRequest(subject, reply, body); err != nil {
			return sentinel(err)
		}
		got, why, err := r.batch(ctx, sub, reply, req.Batch, &delivered)
		if err != nil {
			return err
		}
		oversize = got == 0 && strings.Contains(why, "exceeds maxbytes")
	}
}

// batch hands on one pull's messages and returns how many came and the status
// that ended it. A message of an earlier pull counts too: deliveries are
// numbered by the consumer, not by the pull.
func (r *streamReader) batch(ctx context.Context, sub *nats.Subscription, reply string, want int, delivered *uint64) (got int, why string, err error) {
	for got < want {
		wait, cancel := context.WithTimeout(ctx, pullHeartbeat*5/2)
		m, err := sub.NextMsgWithContext(wait)
		cancel()
		switch {
		case ctx.Err() != nil:
			return got, "", ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			return got, "", errAgain // not even a heartbeat
		case errors.Is(err, nats.ErrSlowConsumer):
			return got, "", errAgain // the client dropped some
		case err != nil:
			return got, "", sentinel(err)
		}
		if status := m.Header.Get("Status"); len(m.Data) == 0 && status != "" && !strings.HasPrefix(m.Reply, "$JS.ACK.") {
			switch {
			case status == "100", m.Subject != reply:
				continue // a heartbeat, or the end of an earlier pull
			case status == "408", status == "404":
				return got, "", nil
			case status == "503":
				return got, "", errAgain // no such consumer, or no leader now
			case status == "409":
				why = strings.ToLower(m.Header.Get("Description"))
				if strings.Contains(why, "exceeds maxbytes") || strings.Contains(why, "batch completed") {
					return got, why, nil
				}
				return got, why, errAgain // consumer deleted, leadership change, server shutdown
			default:
				return got, "", fmt.Errorf("pull: %s %s", status, m.Header.Get("Description"))
			}
		}
		meta, err := m.Metadata()
		if err != nil {
			return got, "", fmt.Errorf("message without metadata: %w", err)
		}
		if meta.Sequence.Consumer != *delivered+1 {
			return got, "", errAgain
		}
		*delivered++
		got++
		if err := r.put(ctx, m, meta); err != nil {
			return got, "", err
		}
	}
	return got, "", nil
}
