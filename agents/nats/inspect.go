package nats

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/agents"
)

// Inspect tells what is in a channel.
//
// Ready is all that a stream stores, because that is what every command on it
// takes: a stream with limits keeps what everybody has read, and purging it
// removes that, too. Ready less Read is what still waits for a consumer, which is
// what statistics show.
func (a *Adapter) Inspect(ctx context.Context, channel string) (agents.ChannelView, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	p, err := a.place(ctx, channel)
	if err != nil {
		return agents.ChannelView{}, fmt.Errorf("nats: inspect %q: %w", channel, err)
	}
	if p.info == nil {
		return a.inspectSubject(ctx, p), nil
	}
	readers, err := p.readers(ctx)
	if err != nil {
		return agents.ChannelView{}, fmt.Errorf("nats: inspect %q: %w", channel, err)
	}
	state := p.info.State
	v := agents.ChannelView{
		Kind: "stream", Ready: int64(state.Msgs), Consumers: int64(len(readers)),
		Keeps: p.config().Retention == jetstream.LimitsPolicy, UpTo: strconv.FormatUint(state.LastSeq, 10), Topology: topology(p.info),
	}
	if state.Msgs > 0 {
		v.Oldest, v.Newest = state.FirstTime, state.LastTime
	}
	var waiting int64
	waiting, v.Unsettled = waits(p.info, readers)
	v.Read = max(v.Ready-waiting, 0)
	if v.Keeps && len(readers) > 0 && v.Read > 0 {
		v.Notes = append(v.Notes, fmt.Sprintf("The stream stores %d messages and keeps what has been read; %d of them still wait for the consumer furthest behind.", v.Ready, waiting))
	}
	if v.Unsettled > 0 {
		v.Notes = append(v.Notes, fmt.Sprintf("%d messages are with consumers and not acknowledged yet; a command takes them, too.", v.Unsettled))
	}
	if why := undeletable(p.config()); why != "" {
		v.Notes = append(v.Notes, "Nothing can be removed: "+why+".")
	}
	return v, nil
}

func (a *Adapter) inspectSubject(ctx context.Context, p *place) agents.ChannelView {
	v := agents.ChannelView{Kind: "subject", Unsettled: -1, Consumers: -1, Notes: []string{"Nothing waits on a subject."}}
	if p.captured != "" {
		v.Notes = append(v.Notes, "The stream "+p.captured+" stores what is published to it.")
	}
	if a.cfg.MonitorURL != "" {
		if n, err := a.listeners(ctx, p.name); err == nil {
			v.Consumers = n
		}
	}
	return v
}

// topology is a fingerprint of what gets into a stream and what stays there. A
// stream that was deleted and made anew has another: its sequences begin anew.
func topology(info *jetstream.StreamInfo) string {
	c := info.Config
	b, err := json.Marshal(struct {
		Name, Created string
		Subjects      []string
		Retention     jetstream.RetentionPolicy
		Transform     *jetstream.SubjectTransformConfig
		Mirror        *jetstream.StreamSource
		Sources       []*jetstream.StreamSource
		Republish     *jetstream.RePublish
		Sealed        bool
	}{c.Name, stamp(info.Created), c.Subjects, c.Retention, c.SubjectTransform, c.Mirror, c.Sources, c.RePublish, c.Sealed})
	if err != nil {
		return "" // not with these types
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// undeletable says why single messages cannot be removed from a stream.
func undeletable(c jetstream.StreamConfig) string {
	switch {
	case c.Sealed:
		return "the stream is sealed"
	case c.DenyDelete:
		return "the stream's configuration says deny_delete"
	}
	return ""
}
