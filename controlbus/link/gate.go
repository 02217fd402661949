package link

import "sync"

// gate is a channel that may be closed more than once.
type gate struct {
	once sync.Once
	c    chan struct{}
}

func newGate() *gate { return &gate{c: make(chan struct{})} }

func (g *gate) shut() { g.once.Do(func() { close(g.c) }) }
