package clickhouse

import (
	"github.com/ClickHouse/ch-go/proto"
)

// block is the rows of one table and one day, in columns.
type block interface {
	// columns is the block as ch-go encodes it. The columns are pointers made
	// once, so the slice stays right when rows are appended.
	columns() []proto.InputColumn
	rows() int
	reset()
}

// base is what every block has.
type base struct {
	input []proto.InputColumn
	n     int
}

func (b *base) columns() []proto.InputColumn { return b.input }
func (b *base) rows() int                    { return b.n }

func (b *base) reset() {
	b.n = 0
	for _, c := range b.input {
		c.Data.(proto.Resettable).Reset()
	}
}

func (b *base) add(name string, c proto.ColInput) {
	b.input = append(b.input, proto.InputColumn{Name: name, Data: c})
}

const nanosPerDay = int64(24 * 60 * 60 * 1e9)

// day is the partition of a time: days since the epoch, as Date counts them.
func day(ns int64) uint16 { return uint16(ns / nanosPerDay) }

// byDay keeps the rows of one table apart by day, so that each insert touches
// one partition. Nearly always there is one day, sometimes two.
type byDay[B block] struct {
	fresh func() B
	days  []uint16
	list  []B
	free  []B
	last  int
}

func (d *byDay[B]) at(day uint16) B {
	if d.last < len(d.days) && d.days[d.last] == day {
		return d.list[d.last]
	}
	for i := range d.days {
		if d.days[i] == day {
			d.last = i
			return d.list[i]
		}
	}
	var b B
	if n := len(d.free); n > 0 {
		b, d.free = d.free[n-1], d.free[:n-1]
	} else {
		b = d.fresh()
	}
	d.days, d.list, d.last = append(d.days, day), append(d.list, b), len(d.list)
	return b
}

// maxFreeBlocks bounds what a batch keeps for the next one: a flood of old
// days must not leave hundreds of column sets behind.
const maxFreeBlocks = 4

func (d *byDay[B]) reset() {
	for _, b := range d.list {
		if len(d.free) < maxFreeBlocks {
			b.reset()
			d.free = append(d.free, b)
		}
	}
	clear(d.list)
	d.days, d.list, d.last = d.days[:0], d.list[:0], 0
}

// each calls f for every day that has rows.
func (d *byDay[B]) each(f func(day uint16, b block)) {
	for i, b := range d.list {
		f(d.days[i], b)
	}
}
