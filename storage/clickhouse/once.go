package clickhouse

import "sync"

// onceKey names a row that needs writing once a day: a metric series or a
// resource.
type onceKey struct {
	kind uint8
	day  uint16
	id   uint64
}

const (
	onceSeries = iota
	onceResource
)

// once remembers which such rows are stored. It forgets the older half when it
// is full; a row that is written again does no harm.
type once struct {
	mu       sync.RWMutex
	now, old map[onceKey]struct{}
}

const onceMax = 500_000

func (o *once) has(k onceKey) bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if _, ok := o.now[k]; ok {
		return true
	}
	_, ok := o.old[k]
	return ok
}

func (o *once) add(keys map[onceKey]struct{}) {
	if len(keys) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.now == nil || len(o.now)+len(keys) > onceMax {
		o.now, o.old = make(map[onceKey]struct{}, len(keys)), o.now
	}
	for k := range keys {
		o.now[k] = struct{}{}
	}
}
