package clickhouse

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// Bodies returns the stored bodies of messages that a search found. Those that
// are not stored are left out. Whoever asks bounds how many bytes that is, by
// asking for few messages at once.
func (s *Store) Bodies(ctx context.Context, of []storage.Message) (map[controlbus.ID][]byte, error) {
	found, err := s.bodies(ctx, of)
	return found, wrap("read bodies", err)
}

func (s *Store) bodies(ctx context.Context, of []storage.Message) (map[controlbus.ID][]byte, error) {
	if len(of) == 0 {
		return nil, nil
	}
	ids := make([][16]byte, 0, len(of))
	first, last := maxTime, minTime
	buckets := make(map[int64]bool)
	for i := range of {
		ids = append(ids, of[i].UID)
		first, last = min(first, of[i].Time), max(last, of[i].Time)
		buckets[of[i].Time-of[i].Time%int64(5*time.Minute)] = true
	}
	q := newSelection(s.sql("SELECT uid, body\nFROM @db.bodies\nWHERE"))
	q.between("ts", nanoRange{from: first, to: last + 1}, true)
	// The messages may lie hours apart.
	q.where("toStartOfFiveMinutes(ts) IN (SELECT toStartOfFiveMinutes(fromUnixTimestamp64Nano(arrayJoin({buckets:Array(Int64)}), 'UTC')))")
	q.bind("buckets", slices.Collect(maps.Keys(buckets)))
	q.anyOf(idSet("uid", "ids", ids))
	q.visible("env", "destination")
	q.add("LIMIT 1 BY uid")
	rows, err := collect[struct {
		UID  string `ch:"uid"`
		Body string `ch:"body"`
	}](ctx, s, nil, q)
	if err != nil {
		return nil, err
	}
	found := make(map[controlbus.ID][]byte, len(rows))
	for _, r := range rows {
		found[id16(r.UID)] = []byte(r.Body)
	}
	return found, nil
}
