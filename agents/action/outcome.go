package action

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/job"
	"github.com/signalbox-dev/signalbox/controlbus/telemetry"
)

// Outcomes of one message, as controlbus.AttrCommandOutcome has them.
const (
	outcomeSent    = "sent"
	outcomeRemoved = "removed"
	outcomeFailed  = "failed"
	outcomeSkipped = "skipped"
)

const (
	outcomeBatch = 500
	outcomeEvery = time.Second
	maxReasons   = 20
)

// outcomes tells what became of each message of a command, through the agent's
// exporter. What the spool has no room for is counted, never waited for.
type outcomes struct {
	a      *Actions
	id     controlbus.CommandID
	kind   controlbus.CommandKind
	source string // channel the messages are taken from; empty: from a store
	good   string // outcome of what is done
	at     controlbus.ChannelName

	logs    plog.Logs
	records plog.LogRecordSlice
	flushed time.Time
	dropped int64
	reasons map[string]int64 // why messages failed or were left alone
}

func (a *Actions) newOutcomes(w *work, source, good string) *outcomes {
	o := &outcomes{
		a: a, id: w.run.Dispatch.Command, kind: w.run.Dispatch.Kind, source: source, good: good, at: w.target,
		reasons: map[string]int64{}, flushed: time.Now(),
	}
	o.reset()
	return o
}

func (o *outcomes) reset() {
	o.logs = plog.NewLogs()
	rl := o.logs.ResourceLogs().AppendEmpty()
	r := rl.Resource().Attributes()
	self := o.a.env.Self
	for _, kv := range [][2]string{
		{controlbus.AttrServiceName, telemetry.AgentService}, {controlbus.AttrServiceInstance, self.ID}, {controlbus.AttrServiceVersion, self.Version},
		{controlbus.AttrHostName, self.Host}, {controlbus.AttrEnvironment, self.Env},
	} {
		if kv[1] != "" {
			r.PutStr(kv[0], kv[1])
		}
	}
	sl := rl.ScopeLogs().AppendEmpty()
	sl.Scope().SetName("github.com/signalbox-dev/signalbox/agents/action")
	o.records = sl.LogRecords()
}

// add tells of one message. It has the form of job.Config.Outcome.
func (o *outcomes) add(it *item, number int64, err error) {
	outcome, why := o.good, ""
	switch {
	case errors.Is(err, job.ErrSkip):
		outcome, why = outcomeSkipped, cutText(err.Error(), 500)
	case err != nil:
		outcome, why = outcomeFailed, cutText(err.Error(), 500)
	}
	if why != "" {
		if _, ok := o.reasons[why]; ok || len(o.reasons) < maxReasons {
			o.reasons[why]++
		} else {
			o.reasons["other reasons"]++
		}
	}
	if it.n > 0 {
		number = it.n
	}
	r := o.records.AppendEmpty()
	now := pcommon.NewTimestampFromTime(time.Now())
	r.SetTimestamp(now)
	r.SetObservedTimestamp(now)
	r.SetEventName(controlbus.EventCommandMessage)
	r.SetSeverityNumber(plog.SeverityNumberInfo)
	if outcome == outcomeFailed {
		r.SetSeverityNumber(plog.SeverityNumberError)
	}
	to := it.to
	if to.Broker == "" {
		to = controlbus.ChannelName{Broker: o.at.Broker}
	}
	attrs := r.Attributes()
	attrs.EnsureCapacity(10)
	attrs.PutStr(controlbus.AttrCommand, string(o.id))
	attrs.PutStr(controlbus.AttrCommandKind, string(o.kind))
	attrs.PutStr(controlbus.AttrCommandOutcome, outcome)
	attrs.PutInt(controlbus.AttrCommandNumber, number)
	for _, kv := range [][2]string{
		{controlbus.AttrBroker, to.Broker}, {controlbus.AttrDestination, to.Name}, {controlbus.AttrCommandSource, o.source},
		{controlbus.AttrMessageID, it.msg.MessageID}, {controlbus.AttrConversationID, it.msg.CorrelationID},
		{controlbus.AttrUID, it.uid}, {controlbus.AttrCommandDetail, why},
	} {
		if kv[1] != "" {
			attrs.PutStr(kv[0], cutText(kv[1], 1000))
		}
	}
	if o.records.Len() >= outcomeBatch {
		o.flush(context.Background())
	}
}

// flushDue sends what has waited long enough.
func (o *outcomes) flushDue(ctx context.Context) {
	if time.Since(o.flushed) >= outcomeEvery {
		o.flush(ctx)
	}
}

// flush hands over what has gathered. The spool does not wait for room; a slow
// disk gets a second.
func (o *outcomes) flush(ctx context.Context) {
	o.flushed = time.Now()
	n := o.records.Len()
	if n == 0 || o.a.env.Logs == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := o.a.env.Logs(ctx, o.logs); err != nil {
		if o.dropped == 0 {
			o.a.env.Log.WarnContext(ctx, "what became of single messages cannot be told", "command", o.id, "error", err)
		}
		o.dropped += int64(n)
	}
	o.reset()
}

// why is the most frequent reason, for the result's one sentence.
func (o *outcomes) why() string {
	var all []string
	for r := range o.reasons {
		all = append(all, r)
	}
	slices.SortFunc(all, func(x, y string) int {
		return cmp.Or(cmp.Compare(o.reasons[y], o.reasons[x]), cmp.Compare(x, y))
	})
	if len(all) == 0 {
		return ""
	}
	return all[0]
}
