package clickhouse

import (
	"context"
	"math"

	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/storage"
)

// A filter becomes conditions of the search's own query. Most are exact. Where
// the store reads JSON otherwise than Match does, the conditions select a few
// messages too many, and each candidate is put to Match with its body.
const (
	candidates = 256      // asked for at once
	judgeBytes = 16 << 20 // of bodies held at once
	usualBody  = 1 << 20  // the collector cuts bodies there
)

func (sr *search) filterSQL() filter.SQL {
	return sr.q.Filter.SQL(filter.SQLOptions{Prefix: "f", HeaderItems: sr.s.textIndex, Bodies: sr.inBodies})
}

// inBodies turns a condition on a body into one on its message. The arguments
// are those of the query around it.
func (sr *search) inBodies(cond string, shared []string) string {
	f := sr.q
	sub := newSelection(sr.s.sql("uid IN (SELECT uid FROM @db.bodies WHERE"))
	sub.between("ts", nanoRange{}, true)
	sub.equal("env", "env", f.Env)
	sub.equal("system", "system", f.System)
	sub.equal("broker", "broker", f.Broker)
	sub.channel("destination", f.Channel)
	for _, c := range shared {
		sub.where(c)
	}
	if sr.lookup { // few messages: their bodies alone
		ids := newSelection(sr.s.sql("uid IN (SELECT uid FROM @db.messages WHERE"))
		ids.between("ts", nanoRange{}, true)
		sr.ids(ids)
		sub.where(ids.String() + ")")
	}
	sub.where(cond + ")")
	return sub.String()
}

// judge reads the bodies of as many of the messages as may be held at once,
// and says how many these are.
func (sr *search) judge(ctx context.Context, list []storage.Message) (int, error) {
	n, bytes := 0, int64(0)
	for n < len(list) && (n == 0 || bytes < judgeBytes) {
		bytes += min(list[n].BodySize, usualBody)
		n++
	}
	text, err := sr.bodiesOf(ctx, &sr.n, list[:n], math.MaxUint32, "")
	for i := range list[:n] {
		if body := text[list[i].UID]; body != "" {
			list[i].Body = []byte(body)
		}
	}
	return n, err
}
