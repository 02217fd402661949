package clickhouse

import (
	"context"
	"fmt"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// FieldValues returns values that a field had, those that begin with what was
// asked for and the most frequent first. They are proposals: fields that the
// roll-up has are counted whole, others in a sample of the newest messages.
func (s *Store) FieldValues(ctx context.Context, q storage.ValuesQuery) ([]storage.FieldValue, error) {
	list, err := s.fieldValues(ctx, q)
	return list, wrap("values of "+q.Field, err)
}

// sampleSize is how many messages a sample holds.
const sampleSize = 20_000

var (
	rolledFields  = map[string]string{"channel": "destination", "service": "service", "env": "env", "system": "system", "broker": "broker"}
	sampledFields = map[string]string{
		"error": "error_type", "dead_letter.source": "dead_letter_source", "dead_letter.reason": "dead_letter_reason",
		"group": "consumer_group", "content_type": "content_type", "content_encoding": "content_encoding", "tap": "tap",
	}
)

const headersField = "header."

func (s *Store) fieldValues(ctx context.Context, v storage.ValuesQuery) ([]storage.FieldValue, error) {
	if v.Limit <= 0 {
		v.Limit = defaultLimit
	}
	v.Limit = min(v.Limit, maxLimit)
	r := nanos(v.Range)
	var q *selection
	column, rolled := rolledFields[v.Field]
	sampled, known := sampledFields[v.Field]
	switch {
	case rolled:
		q = newSelection(s.sql("SELECT " + column + " AS value, sum(n) AS events\nFROM @db.rollup\nWHERE"))
		q.where("step = 3600")
		q.where("t >= toStartOfHour(fromUnixTimestamp64Nano({from:Int64}, 'UTC'))")
		q.where("t < fromUnixTimestamp64Nano({to:Int64}, 'UTC')")
		q.bind("from", r.from)
		q.bind("to", r.to)
		q.equal("env", "env", v.Env)
		q.visible("env", "destination")
	case known, v.Field == headersField:
		inner := newSelection(s.sql("SELECT " + sampled + " AS value\nFROM @db.messages\nWHERE"))
		if !known {
			inner = newSelection(s.sql("SELECT mapKeys(headers) AS names\nFROM @db.messages\nWHERE"))
		}
		inner.between("ts", r, true)
		inner.equal("env", "env", v.Env)
		if known {
			inner.where(sampled + " != ''")
		}
		inner.visible("env", "destination")
		inner.add("ORDER BY toStartOfFiveMinutes(ts) DESC, ts DESC\nLIMIT {sample:UInt32}")
		inner.bind("sample", sampleSize)
		before, after := "SELECT value, count() AS events\nFROM (", ")\nWHERE"
		if !known {
			before, after = before+"SELECT arrayJoin(names) AS value FROM (", ")"+after
		}
		q = newSelection(before + inner.String() + after)
		q.args = inner.args
		for _, m := range inner.scopes {
			m.at += len(before)
			q.scopes = append(q.scopes, m)
		}
		column = "value"
	default:
		return nil, fmt.Errorf("%w: no values are known of field %q", controlbus.ErrInvalid, v.Field)
	}
	q.where(column + " != ''")
	order := "ORDER BY "
	if v.Part != "" {
		q.where("positionCaseInsensitive(" + column + ", {part:String}) > 0")
		q.bind("part", v.Part)
		order += "positionCaseInsensitive(value, {part:String}) = 1 DESC, "
	}
	q.add("GROUP BY value\n" + order + "events DESC, value\nLIMIT {limit:UInt32}")
	q.bind("limit", v.Limit)
	rows, err := collect[struct {
		Value string `ch:"value"`
		N     uint64 `ch:"events"`
	}](ctx, s, nil, q)
	if err != nil {
		return nil, err
	}
	list := make([]storage.FieldValue, len(rows))
	for i, row := range rows {
		list[i] = storage.FieldValue{Value: row.Value, Messages: row.N}
	}
	return list, nil
}
