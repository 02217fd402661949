package engine

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// pool holds the connections to the one data path. A connection runs one
// statement at a time and is handed out clean: one that a statement has left
// its mark on (settings, current database, temporary tables) is closed and
// replaced, which takes under a millisecond.
type pool struct {
	lib   *lib
	args  []string      // of every connection
	slots chan *session // nil entries are connections still to be opened
	wait  time.Duration
	log   *slog.Logger

	kill *killer
}

// session is a connection taken from the pool.
type session struct {
	*conn
	tag   string // log_comment of its statements, by which they are found and killed
	dirty bool
}

func newPool(l *lib, args []string, n int, wait time.Duration, k *killer, log *slog.Logger) *pool {
	p := &pool{lib: l, args: args, slots: make(chan *session, n), wait: wait, kill: k, log: log}
	for range n {
		p.slots <- nil
	}
	return p
}

// acquire waits for a free connection, as long as ctx and the queue allow.
func (p *pool) acquire(ctx context.Context) (*session, error) {
	timer := time.NewTimer(p.wait)
	defer timer.Stop()
	var s *session
	select {
	case s = <-p.slots:
	case <-timer.C:
		return nil, exceptionf(codeTooManyQueries, "all %d connections have been busy for %v. (TOO_MANY_SIMULTANEOUS_QUERIES)", cap(p.slots), p.wait)
	case <-ctx.Done():
		return nil, exceptionf(codeCancelled, "gave up waiting for a free connection: %v. (QUERY_WAS_CANCELLED)", context.Cause(ctx))
	}
	if s != nil {
		return s, nil
	}
	tag := p.kill.newTag()
	c, err := p.lib.open(append(append([]string(nil), p.args...), "--log_comment="+tag))
	if err != nil {
		p.slots <- nil
		return nil, err
	}
	return &session{conn: c, tag: tag}, nil
}

func (p *pool) release(s *session) {
	if s.dirty {
		s.close()
		s = nil
	}
	p.slots <- s
}

// close waits for every connection to come back and closes them.
func (p *pool) close() {
	for range cap(p.slots) {
		if s := <-p.slots; s != nil {
			s.close()
		}
	}
}

// set applies settings to the session, which becomes dirty.
func (s *session) set(settings []param) error {
	if len(settings) == 0 {
		return nil
	}
	s.dirty = true
	var b strings.Builder
	b.WriteString("SET ")
	for i, p := range settings {
		if i > 0 {
			b.WriteString(", ")
		}
		if !settingName(p.name) {
			return exceptionf(115, "Unknown setting %q. (UNKNOWN_SETTING)", p.name)
		}
		b.WriteString(p.name)
		b.WriteByte('=')
		b.WriteString(quoteString(p.value))
	}
	return s.exec(b.String())
}

func (s *session) use(database string) error {
	s.dirty = true
	return s.exec("USE " + quoteName(database))
}

func settingName(s string) bool {
	for i := range len(s) {
		if !wordByte(s[i]) && s[i] != '.' || i == 0 && !wordStart(s[i]) {
			return false
		}
	}
	return s != ""
}

var (
	stringEscapes = strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	nameEscapes   = strings.NewReplacer(`\`, `\\`, "`", "\\`")
)

func quoteString(s string) string { return "'" + stringEscapes.Replace(s) + "'" }

func quoteName(s string) string { return "`" + nameEscapes.Replace(s) + "`" }

// killer ends statements from a connection of its own, since a connection is
// busy for as long as its statement runs.
type killer struct {
	mu   sync.Mutex
	conn *conn
	tags uint64
}

func (k *killer) newTag() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tags++
	return fmt.Sprintf("signalbox-connection-%d", k.tags)
}

func (k *killer) killTag(tag string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.conn.exec("KILL QUERY WHERE Settings['log_comment'] = " + quoteString(tag) + " ASYNC")
}

// killPause is the time between attempts: a statement enters the engine's list
// a moment after it was handed over, and a kill before that finds nothing.
const killPause = 50 * time.Millisecond

// watch kills the session's statement when ctx ends before the returned
// function is called. That function returns once no kill is under way, so the
// connection's next statement is safe from it.
func (p *pool) watch(ctx context.Context, s *session) (done func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	finished, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-finished:
			return
		case <-ctx.Done():
		}
		for {
			if err := p.kill.killTag(s.tag); err != nil {
				p.log.Warn("statement of a departed client could not be killed", "error", err)
			}
			select {
			case <-finished:
				return
			case <-time.After(killPause):
			}
		}
	}()
	return func() {
		close(finished)
		<-stopped
	}
}
