package clickhouse

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/storage"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
	snippetBytes = 256
)

// A search walks time in slices, newest first unless asked otherwise, so that
// it can stop as soon as the page is full and say how far it came. Slices grow
// while they are quick and shrink when they are slow.
const (
	firstSlice  = time.Hour
	bodySlice   = 10 * time.Minute // bodies cost more to look at
	sliceTarget = 250 * time.Millisecond
	// sliceMargin is what must be left of the time budget to begin another
	// slice: an answer later than promised is no answer.
	sliceMargin = 20 * time.Millisecond
)

// cursor is where a page ended: the next one begins right behind it.
type cursor struct {
	order storage.Order
	ts    int64
	uid   controlbus.ID
}

const cursorVersion = 1

func (c cursor) String() string {
	b := make([]byte, 0, 26)
	b = append(b, cursorVersion, byte(c.order))
	b = binary.BigEndian.AppendUint64(b, uint64(c.ts))
	b = append(b, c.uid[:]...)
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseCursor(s string, order storage.Order) (cursor, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != 26 || b[0] != cursorVersion || b[1] != byte(order) {
		return cursor{}, fmt.Errorf("%w: cursor %.60q is not one of this search", controlbus.ErrInvalid, s)
	}
	return cursor{order: order, ts: clampTime(int64(binary.BigEndian.Uint64(b[2:]))), uid: controlbus.ID(b[10:])}, nil
}

// Messages returns a page of the message events that q selects. It returns
// what it found when its deadline strikes, with a cursor to go on from.
func (s *Store) Messages(ctx context.Context, q storage.MessageQuery) (storage.MessagePage, error) {
	defer s.timed("search")()
	page, err := s.messages(ctx, q)
	return page, wrap("search messages", err)
}

func (s *Store) messages(ctx context.Context, q storage.MessageQuery) (storage.MessagePage, error) {
	begin := time.Now()
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	sr, err := s.newSearch(q)
	if err != nil {
		return storage.MessagePage{}, err
	}
	page := storage.MessagePage{Scan: storage.Scan{Range: q.Range, Stopped: storage.StopEnd}}
	stopped, err := sr.run(ctx)
	page.Scan.Stopped = stopped
	page.Scan.Rows, page.Scan.Bytes = sr.n.rows.Load(), sr.n.bytes.Load()
	page.Messages = sr.found
	if err == nil && (q.Snippets || sr.bodies) {
		// A page without snippets is better than none: the time was spent on
		// finding the messages.
		if err = sr.snippets(ctx, sr.found); timedOut(err) {
			page.Scan.Stopped, err = storage.StopDeadline, nil
			stopped = storage.StopDeadline
		}
	}
	switch {
	case err != nil:
		return storage.MessagePage{}, err
	case stopped == storage.StopEnd:
		page.Scan.Reached = instant(sr.end())
	default:
		page.Scan.Reached = instant(sr.at.ts)
		page.Next = sr.at.String()
	}
	page.Scan.Elapsed = time.Since(begin)
	return page, nil
}

// search is one walk.
type search struct {
	s     *Store
	q     storage.MessageQuery
	limit int
	whole nanoRange // of the walk: what was asked for, behind the cursor
	at    cursor    // everything up to here has been looked at
	n     scanned
	found []storage.Message
	seen  map[controlbus.ID]bool

	uid, trace, correlation []byte
	filter                  filter.SQL
	bodies                  bool // conditions look into bodies
	lookup                  bool // by an id that an index answers: no slices

	selected *storage.Selection // nil: no selection, but a page for people
}

func (s *Store) newSearch(q storage.MessageQuery) (*search, error) {
	q = q.Resolve()
	sr := &search{s: s, q: q, limit: q.Limit, whole: nanos(q.Range), seen: make(map[controlbus.ID]bool)}
	switch {
	case sr.limit <= 0:
		sr.limit = defaultLimit
	case sr.limit > maxLimit:
		sr.limit = maxLimit
	}
	if q.Order > storage.OldestFirst {
		return nil, fmt.Errorf("%w: order %d", controlbus.ErrInvalid, q.Order)
	}
	if q.HeaderValue != "" && q.HeaderName == "" {
		return nil, fmt.Errorf("%w: a header value wants a header name", controlbus.ErrInvalid)
	}
	var err error
	if sr.uid, err = hexID("uid", q.UID); err != nil {
		return nil, err
	}
	if sr.trace, err = hexID("trace id", q.TraceID); err != nil {
		return nil, err
	}
	if q.CorrelationID != "" {
		key := controlbus.CorrelationKey(q.CorrelationID)
		sr.correlation = key[:]
	}
	sr.bodies = q.BodyWord != "" || q.Filter.NeedsBody()
	sr.lookup = sr.uid != nil || sr.trace != nil || sr.correlation != nil || q.MessageID != ""
	sr.filter = sr.filterSQL()
	if q.Order == storage.NewestFirst {
		sr.at = cursor{order: q.Order, ts: sr.whole.to}
	} else {
		sr.at = cursor{order: q.Order, ts: sr.whole.from - 1, uid: lastID}
	}
	if q.Cursor != "" {
		if sr.at, err = parseCursor(q.Cursor, q.Order); err != nil {
			return nil, err
		}
		// The cursor's own instant may hold more rows.
		if q.Order == storage.NewestFirst {
			sr.whole.to = min(sr.whole.to, sr.at.ts+1)
		} else {
			sr.whole.from = max(sr.whole.from, sr.at.ts)
		}
	}
	return sr, nil
}

var lastID = controlbus.ID{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}

func hexID(what, text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 16 {
		return nil, fmt.Errorf("%w: %s %.64q: want 32 hexadecimal digits", controlbus.ErrInvalid, what, text)
	}
	return b, nil
}

// end is where a walk that found too little ends.
func (sr *search) end() int64 {
	if sr.q.Order == storage.NewestFirst {
		return nanos(sr.q.Range).from
	}
	return nanos(sr.q.Range).to
}

func (sr *search) run(ctx context.Context) (storage.StopReason, error) {
	if err := sr.narrow(ctx); err != nil {
		if timedOut(err) {
			return storage.StopDeadline, nil
		}
		return "", err
	}
	slice := firstSlice
	if sr.bodies {
		slice = bodySlice
	}
	rest := sr.whole
	for !rest.empty() {
		part := rest
		if !sr.lookup {
			part = sr.cut(rest, slice)
		}
		begin, read := time.Now(), sr.n.bytes.Load()
		full, err := sr.look(ctx, part)
		switch {
		case err != nil && timedOut(err):
			return storage.StopDeadline, nil
		case err != nil:
			return "", err
		case full:
			return storage.StopLimit, nil
		}
		// The whole slice has been looked at.
		if sr.q.Order == storage.NewestFirst {
			rest.to = part.from
			sr.at = cursor{order: sr.q.Order, ts: part.from}
		} else {
			rest.from = part.to
			sr.at = cursor{order: sr.q.Order, ts: part.to - 1, uid: lastID}
		}
		slice = nextSlice(slice, time.Since(begin), sr.n.bytes.Load()-read)
		if deadline, ok := ctx.Deadline(); ok && !rest.empty() && time.Until(deadline) < sliceMargin {
			return storage.StopDeadline, nil
		}
	}
	return storage.StopEnd, nil
}

// nextSlice aims at slices that take sliceTarget. One that took long for little
// that it read is none the better for being shorter: a large filter takes its
// time whatever the slice.
func nextSlice(slice, took time.Duration, read uint64) time.Duration {
	const little = 16 << 20
	switch {
	case took < sliceTarget/4:
		slice *= 8
	case took < sliceTarget || read < little:
		slice *= 2
	case took > 4*sliceTarget:
		slice /= 2
	}
	return min(max(slice, time.Minute), 32*24*time.Hour)
}

// cut is the next slice of what is left, its inner end on a bucket border.
func (sr *search) cut(rest nanoRange, slice time.Duration) nanoRange {
	const bucket = int64(5 * time.Minute)
	if sr.q.Order == storage.NewestFirst {
		from := rest.to - int64(slice)
		from -= from % bucket
		return nanoRange{from: max(from, rest.from), to: rest.to}
	}
	to := rest.from + int64(slice)
	to += bucket - to%bucket
	return nanoRange{from: rest.from, to: min(to, rest.to)}
}

// narrow bounds the walk by the filter's times, and by the time an id was seen
// in, which the index of ids knows.
func (sr *search) narrow(ctx context.Context) error {
	if from, to := sr.q.Filter.Bounds(); from != 0 || to != 0 {
		sr.whole.from = max(sr.whole.from, from)
		if to != 0 {
			sr.whole.to = min(sr.whole.to, to)
		}
	}
	for _, id := range [][]byte{sr.trace, sr.correlation} {
		if id == nil {
			continue
		}
		r, err := sr.s.idRange(ctx, &sr.n, [][16]byte{[16]byte(id)})
		if err != nil {
			return err
		}
		sr.whole.from, sr.whole.to = max(sr.whole.from, r.from), min(sr.whole.to, r.to)
	}
	return nil
}

// idRange is the time in which any of the ids was seen. It is empty if none was.
func (s *Store) idRange(ctx context.Context, n *scanned, ids [][16]byte) (nanoRange, error) {
	q := newSelection(s.sql("SELECT toUnixTimestamp64Milli(min(first)) AS first_ms, toUnixTimestamp64Milli(max(last)) AS last_ms, count() AS n\n" +
		"FROM @db.id_span\nWHERE")).unlimited("when an id was seen at all; whoever asks knows the id")
	q.anyOf(idSet("id", "ids", ids))
	list, err := collect[struct {
		First int64  `ch:"first_ms"`
		Last  int64  `ch:"last_ms"`
		N     uint64 `ch:"n"`
	}](ctx, s, n, q)
	if err != nil || len(list) == 0 || list[0].N == 0 {
		return nanoRange{}, err
	}
	return nanoRange{from: list[0].First * 1e6, to: (list[0].Last + 1) * 1e6}, nil
}

// look searches one slice until it is done or the page is full.
func (sr *search) look(ctx context.Context, part nanoRange) (full bool, err error) {
	for {
		want := sr.limit - len(sr.found)
		if !sr.filter.Exact {
			want = max(want, candidates)
		}
		rows, err := collect[messageRow](ctx, sr.s, &sr.n, sr.selection(part, want))
		if err != nil {
			return false, err
		}
		list := make([]storage.Message, len(rows))
		for i := range rows {
			list[i] = rows[i].message()
		}
		for rest := list; len(rest) > 0; {
			n := len(rest)
			if !sr.filter.Exact {
				if n, err = sr.judge(ctx, rest); err != nil {
					return false, err
				}
			}
			if sr.take(rest[:n]) {
				return true, nil
			}
			rest = rest[n:]
		}
		if len(rows) < want {
			return false, nil
		}
	}
}

// take adds what has been looked at to the page until that is full.
func (sr *search) take(list []storage.Message) (full bool) {
	for i := range list {
		m := &list[i]
		sr.at = cursor{order: sr.q.Order, ts: m.Time, uid: m.UID}
		// Two agents that tap one channel store the same event twice.
		if sr.seen[m.UID] || !sr.filter.Exact && !sr.q.Filter.Match(&m.MessageEvent) {
			continue
		}
		sr.seen[m.UID] = true
		m.Body = nil
		if sr.found = append(sr.found, *m); len(sr.found) >= sr.limit {
			return true
		}
	}
	return false
}

// selection is the query for at most limit rows of a slice, behind the cursor.
func (sr *search) selection(part nanoRange, limit int) *selection {
	q := newSelection(sr.s.query("messages"))
	q.between("ts", part, true)
	sr.where(q, true)
	if sr.q.Order == storage.NewestFirst {
		q.where("(ts, uid) < (fromUnixTimestamp64Nano({at:Int64}, 'UTC'), toFixedString(unhex({at_uid:String}), 16))")
		q.visible("env", "destination")
		q.add("ORDER BY toStartOfFiveMinutes(ts) DESC, ts DESC, uid DESC")
	} else {
		q.where("(ts, uid) > (fromUnixTimestamp64Nano({at:Int64}, 'UTC'), toFixedString(unhex({at_uid:String}), 16))")
		q.visible("env", "destination")
		q.add("ORDER BY toStartOfFiveMinutes(ts), ts, uid")
	}
	q.bind("at", sr.at.ts)
	q.bind("at_uid", sr.at.uid.String())
	q.add("LIMIT {limit:UInt32}")
	q.bind("limit", limit)
	return q
}

// where adds the conditions on what messages hold.
func (sr *search) where(q *selection, body bool) {
	f := sr.q
	q.equal("env", "env", f.Env)
	q.equal("system", "system", f.System)
	q.equal("broker", "broker", f.Broker)
	q.channel("destination", f.Channel)
	q.equal("service", "service", f.Service)
	sr.ids(q)
	sr.chosen(q)
	switch {
	case f.HeaderName != "" && f.HeaderValue != "":
		// The first condition is for the index, the second is exact.
		if sr.s.textIndex {
			q.where("has(header_items, concat({header:String}, '=', {header_value:String}))")
		} else {
			q.where("has(mapValues(headers), {header_value:String})")
		}
		q.where("arrayExists((k, v) -> k = {header:String} AND v = {header_value:String}, mapKeys(headers), mapValues(headers))")
		q.bind("header", f.HeaderName)
		q.bind("header_value", f.HeaderValue)
	case f.HeaderName != "":
		q.where("has(mapKeys(headers), {header:String})")
		q.bind("header", f.HeaderName)
	}
	if f.FailedOnly {
		q.where("outcome != 'ok'")
	}
	if f.BodyWord != "" && body {
		q.where(sr.inBodies("positionCaseInsensitive(body, {word:String}) > 0", nil))
		q.bind("word", f.BodyWord)
	}
	for _, cond := range sr.filter.Conditions {
		q.where(cond)
	}
	for _, p := range sr.filter.Params {
		q.bind(p.Name, p.Value)
	}
	if !sr.filter.Empty() {
		// Numbers in texts are read as Match reads them.
		q.set("precise_float_parsing", 1)
		// Paths make long text of few bytes, and filters are bounded in those.
		q.set("max_query_size", 4<<20)
	}
}

// ids adds the conditions that indexes answer.
func (sr *search) ids(q *selection) {
	q.equal("message_id", "message_id", sr.q.MessageID)
	if sr.correlation != nil {
		q.fixed("correlation", "correlation", sr.correlation)
	}
	if sr.trace != nil {
		q.fixed("trace_id", "trace", sr.trace)
	}
	if sr.uid != nil {
		q.fixed("uid", "uid", sr.uid)
	}
}

// snippets fills in the start of the bodies of what was found. What is read is
// not counted as scanned: it is part of showing the page, not of the search.
func (sr *search) snippets(ctx context.Context, found []storage.Message) error {
	word := sr.q.BodyWord
	if word == "" {
		word = sr.q.Filter.Word()
	}
	text, err := sr.bodiesOf(ctx, nil, found, snippetBytes, word)
	for i := range found {
		found[i].Snippet = text[found[i].UID]
	}
	return err
}

// snippetLead is how much of a body is shown before the word that was found.
const snippetLead = 60

// bodiesOf reads the bodies of messages, at most size bytes of each: the
// start, or what stands around a word that is further behind.
func (sr *search) bodiesOf(ctx context.Context, n *scanned, found []storage.Message, size uint32, around string) (map[controlbus.ID]string, error) {
	ids := make([][16]byte, 0, len(found))
	first, last := maxTime, minTime
	buckets := make(map[int64]bool)
	for i := range found {
		ids = append(ids, found[i].UID)
		first, last = min(first, found[i].Time), max(last, found[i].Time)
		buckets[found[i].Time-found[i].Time%int64(5*time.Minute)] = true
	}
	if len(ids) == 0 {
		return nil, nil
	}
	columns := "uid, toUInt64(1) AS start, substring(body, 1, {size:UInt32}) AS part"
	if around != "" {
		columns = "uid, toUInt64(greatest(1, toInt64(positionCaseInsensitive(body, {around:String})) - {lead:UInt32})) AS start, substring(body, start, {size:UInt32}) AS part"
	}
	q := newSelection(sr.s.sql("SELECT " + columns + "\nFROM @db.bodies\nWHERE"))
	q.bind("size", size)
	if around != "" {
		q.bind("around", around)
		q.bind("lead", uint32(snippetLead))
	}
	q.between("ts", nanoRange{from: first, to: last + 1}, true)
	// A page may reach over hours of which it holds few minutes.
	q.where("toStartOfFiveMinutes(ts) IN (SELECT toStartOfFiveMinutes(fromUnixTimestamp64Nano(arrayJoin({buckets:Array(Int64)}), 'UTC')))")
	q.bind("buckets", slices.Collect(maps.Keys(buckets)))
	q.channel("destination", sr.q.Channel)
	q.anyOf(idSet("uid", "ids", ids))
	q.visible("env", "destination")
	q.add("LIMIT 1 BY uid")
	rows, err := collect[struct {
		UID   string `ch:"uid"`
		Start uint64 `ch:"start"`
		Part  string `ch:"part"`
	}](ctx, sr.s, n, q)
	if err != nil {
		return nil, err
	}
	text := make(map[controlbus.ID]string, len(rows))
	for _, r := range rows {
		if r.Start > 1 {
			for i := 0; i < 3 && r.Part != "" && !utf8.RuneStart(r.Part[0]); i++ {
				r.Part = r.Part[1:] // the rest of a character that was cut
			}
			r.Part = "…" + r.Part
		}
		text[id16(r.UID)] = r.Part
	}
	return text, nil
}

// Message returns one event with its body. A time near the event makes it a
// lookup in one hour; without one the indexes of the whole retention are asked.
func (s *Store) Message(ctx context.Context, uid controlbus.ID, near time.Time) (storage.MessageDetail, error) {
	defer s.timed("one message")()
	d, err := s.message(ctx, uid, near)
	return d, wrap("message "+uid.String(), err)
}

func (s *Store) message(ctx context.Context, uid controlbus.ID, near time.Time) (storage.MessageDetail, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	ranges := []nanoRange{{from: minTime, to: maxTime}}
	if !near.IsZero() {
		hour, at := int64(time.Hour), nanosOf(near)
		ranges = []nanoRange{{from: clampTime(at - hour/2), to: clampTime(at + hour/2)}, ranges[0]}
	}
	for _, r := range ranges {
		q := newSelection(s.query("messages"))
		q.between("ts", r, true)
		q.fixed("uid", "uid", uid[:])
		q.visible("env", "destination")
		q.add("LIMIT 1")
		rows, err := collect[messageRow](ctx, s, nil, q)
		if err != nil {
			return storage.MessageDetail{}, err
		}
		if len(rows) == 0 {
			continue
		}
		d := storage.MessageDetail{Message: rows[0].message()}
		q = newSelection(s.sql("SELECT body\nFROM @db.bodies\nWHERE"))
		q.between("ts", nanoRange{from: d.Time, to: d.Time + 1}, true)
		q.fixed("uid", "uid", uid[:])
		q.visible("env", "destination")
		q.add("LIMIT 1")
		bodies, err := collect[struct {
			Body string `ch:"body"`
		}](ctx, s, nil, q)
		if err != nil {
			return storage.MessageDetail{}, err
		}
		if len(bodies) > 0 {
			d.Body, d.BodyStored = []byte(bodies[0].Body), true
		}
		return d, nil
	}
	return storage.MessageDetail{}, notFound
}
