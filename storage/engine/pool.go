package engine

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// pool holds the connections to the one data path. A connection runs one
// statement at a time. Settings given with a statement stay on its connection,
// which from then on serves statements with the same settings only: nothing
// leaks, and the console's few combinations need no SET each time. One that a
// statement has left another mark on (SET, USE, a temporary table) is closed.
// A new connection costs under a millisecond.
type pool struct {
	lib   *lib
	args  []string      // of every connection
	slots chan struct{} // one for each connection that may be in use
	wait  time.Duration
	log   *slog.Logger
	kill  *killer

	mu   sync.Mutex
	idle []*session // the most recently used last
}

// session is a connection taken from the pool.
type session struct {
	*conn
	tag      string // log_comment of its statements, by which they are found and killed
	database string
	settings string // as in a SET statement
	dirty    bool
}

func newPool(l *lib, args []string, n int, wait time.Duration, k *killer, log *slog.Logger) *pool {
	return &pool{lib: l, args: args, slots: make(chan struct{}, n), wait: wait, kill: k, log: log}
}

// acquire waits for a free connection, as long as ctx and the queue allow, and
// gives it the database and the settings asked for.
func (p *pool) acquire(ctx context.Context, database string, settings []param) (*session, error) {
	set, err := settingList(settings)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(p.wait)
	defer timer.Stop()
	select {
	case p.slots <- struct{}{}:
	case <-timer.C:
		return nil, exceptionf(codeTooManyQueries, "all %d connections have been busy for %v. (TOO_MANY_SIMULTANEOUS_QUERIES)", cap(p.slots), p.wait)
	case <-ctx.Done():
		return nil, exceptionf(codeCancelled, "gave up waiting for a free connection: %v. (QUERY_WAS_CANCELLED)", context.Cause(ctx))
	}
	s := p.take(database, set)
	if s == nil {
		s, err = p.open(set)
	}
	if err == nil && s.database != database {
		if err = s.exec("USE " + quoteName(database)); err == nil {
			s.database = database
		}
	}
	if err != nil {
		if s != nil {
			s.dirty = true
			p.release(s)
		} else {
			<-p.slots
		}
		return nil, err
	}
	return s, nil
}

// take returns an idle connection with these settings, at best with this
// database. Without one it makes room for a new connection and returns nil.
func (p *pool) take(database, settings string) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := -1
	for i, s := range p.idle {
		if s.settings == settings && (at < 0 || p.idle[at].database != database || s.database == database) {
			at = i
		}
	}
	if at >= 0 {
		s := p.idle[at]
		p.idle = slices.Delete(p.idle, at, at+1)
		return s
	}
	// Those in use, this caller's included, and the idle ones stay within
	// twice the number that may run.
	if len(p.idle) >= cap(p.slots) {
		p.idle[0].close()
		p.idle = slices.Delete(p.idle, 0, 1)
	}
	return nil
}

func (p *pool) open(settings string) (*session, error) {
	tag := p.kill.newTag()
	c, err := p.lib.open(append(append([]string(nil), p.args...), "--log_comment="+tag))
	if err != nil {
		return nil, err
	}
	s := &session{conn: c, tag: tag, database: defaultDatabase, settings: settings}
	// A token names one insert, so no other statement will ask for this
	// connection; idle, it would only push out one that is of use.
	s.dirty = strings.Contains(settings, "insert_deduplication_token=")
	if settings != "" {
		if err := s.exec("SET " + settings); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (p *pool) release(s *session) {
	if s.dirty {
		s.close()
	} else {
		p.mu.Lock()
		p.idle = append(p.idle, s)
		p.mu.Unlock()
	}
	<-p.slots
}

const defaultDatabase = "default"

// close waits for every connection to come back and closes them.
func (p *pool) close() {
	for range cap(p.slots) {
		p.slots <- struct{}{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.idle {
		s.close()
	}
	p.idle = nil
}

// settingList writes settings as SET takes them.
func settingList(settings []param) (string, error) {
	var b strings.Builder
	for i, p := range settings {
		if i > 0 {
			b.WriteString(", ")
		}
		if !settingName(p.name) {
			return "", exceptionf(115, "Unknown setting %q. (UNKNOWN_SETTING)", p.name)
		}
		b.WriteString(p.name)
		b.WriteByte('=')
		b.WriteString(quoteString(p.value))
	}
	return b.String(), nil
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
