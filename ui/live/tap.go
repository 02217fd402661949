package live

import (
	"context"
	"errors"
	"time"

	"github.com/gorilla/websocket"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// tap is one connection.
type tap struct {
	h      *Handler
	conn   *websocket.Conn
	sub    Subscription
	query  controlbus.LiveQuery
	ctx    context.Context //nolint:containedctx // it ends both goroutines
	cancel context.CancelCauseFunc
	// doubted: rights have changed while it was opened.
	doubted bool
}

// ending is why a connection ends, as the reader is told.
type ending struct {
	code   int
	reason string
}

func (e ending) Error() string { return e.reason }

// errLeft: the reader closed the connection itself and does not come back.
var errLeft = errors.New("the reader has left")

// CloseAway is how a page says that it leaves and will come back: its tab is
// hidden. Other clean closes are for good.
const CloseAway = 4001

// end makes both goroutines end; a write that hangs is cut short. It does not
// block.
func (t *tap) end(why ending) {
	t.cancel(why)
	_ = t.conn.NetConn().SetWriteDeadline(time.Now().Add(closeTimeout))
	// A write that began just now has set its own deadline over this one.
	time.AfterFunc(2*closeTimeout, func() { _ = t.conn.Close() })
}

// read answers pings and notices when the reader has gone.
func (t *tap) read() {
	defer t.h.wg.Done()
	t.conn.SetReadLimit(readLimit)
	alive := func(string) error { return t.conn.SetReadDeadline(time.Now().Add(pongTimeout)) }
	t.conn.SetPongHandler(alive)
	if alive("") == nil {
		for {
			if _, _, err := t.conn.NextReader(); err != nil {
				if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway) {
					t.cancel(errLeft)
				}
				break
			}
		}
	}
	t.cancel(nil)
}

// write sends frames and pings until the reader is gone or may not any more,
// the source ends, or the reader does not take what is sent.
func (t *tap) write() {
	defer t.h.wg.Done()
	err := t.pump()
	cause := context.Cause(t.ctx)
	var why ending
	switch {
	case errors.As(cause, &why), errors.As(err, &why):
		_ = t.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(why.code, why.reason), time.Now().Add(closeTimeout))
	case t.ctx.Err() == nil && errors.Is(err, controlbus.ErrDenied):
		_ = t.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(CloseRevoked, revokedReason), time.Now().Add(closeTimeout))
	case t.ctx.Err() == nil && errors.Is(err, controlbus.ErrUnavailable):
		_ = t.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, "the console stops"), time.Now().Add(closeTimeout))
	case t.ctx.Err() == nil && errors.Is(err, controlbus.ErrNotFound):
		_ = t.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseTryAgainLater, "the tap's time is over; open it again"), time.Now().Add(closeTimeout))
	}
	_ = t.conn.Close() // ends the reader
	t.cancel(nil)
	t.sub.Close(!errors.Is(cause, errLeft) && why.code != CloseRevoked)
	t.h.remove(t)
}

func (t *tap) pump() error {
	now := time.Now()
	nextPing, lastFrame, checked := now.Add(pingEvery), now, now
	nextCheck := now.Add(t.h.cfg.RecheckEvery)
	if t.doubted {
		if why, over := t.ask(); over {
			return why
		}
	}
	for {
		until := nextPing
		if at := lastFrame.Add(idleEvery); at.Before(until) {
			until = at
		}
		if t.h.cfg.Recheck != nil && nextCheck.Before(until) {
			until = nextCheck
		}
		frame, err := t.sub.Next(t.ctx, time.Until(until))
		if t.ctx.Err() != nil {
			return t.ctx.Err()
		}
		if err != nil {
			return err
		}
		now = time.Now()
		if t.h.cfg.Recheck != nil && !now.Before(nextCheck) {
			// Before the frame: nothing goes to somebody who may not read it.
			if err := t.recheck(now, &checked, &nextCheck); err != nil {
				return err
			}
		}
		if !now.Before(nextPing) {
			nextPing = now.Add(pingEvery)
			if err := t.conn.WriteControl(websocket.PingMessage, nil, now.Add(t.h.cfg.WriteTimeout)); err != nil {
				return err
			}
		}
		if frame == nil {
			if now.Sub(lastFrame) < idleEvery {
				continue
			}
			frame = idleFrame
		}
		lastFrame = now
		if err := t.conn.SetWriteDeadline(now.Add(t.h.cfg.WriteTimeout)); err != nil {
			return err
		}
		if err := t.conn.WriteMessage(websocket.TextMessage, frame); err != nil {
			return err
		}
	}
}

// recheck asks whether the reader still may. Who cannot be asked for is given a
// minute.
func (t *tap) recheck(now time.Time, checked, next *time.Time) error {
	why, over := t.ask()
	switch {
	case over:
		return why
	case why.reason == "":
		*checked, *next = now, now.Add(t.h.cfg.RecheckEvery)
	case now.Sub(*checked) >= recheckMost:
		return why
	default:
		*next = now.Add(min(t.h.cfg.RecheckEvery, 10*time.Second))
	}
	return nil
}

const revokedReason = "you may not watch this any more: you have signed out, or an administrator has taken the right back"

// ask says whether the tap is over. Where nobody can say, it is not, and there
// is a reason all the same.
func (t *tap) ask() (why ending, over bool) {
	if t.h.cfg.Recheck == nil {
		return ending{}, false
	}
	ctx, cancel := context.WithTimeout(t.ctx, 5*time.Second)
	defer cancel()
	err := t.h.cfg.Recheck(ctx, t.query)
	switch {
	case err == nil || t.ctx.Err() != nil:
		return ending{}, false
	case errors.Is(err, controlbus.ErrDenied):
		return ending{CloseRevoked, revokedReason}, true
	case errors.Is(err, controlbus.ErrConflict):
		return ending{websocket.CloseTryAgainLater, "your rights have changed; open the tap again"}, true
	}
	return ending{websocket.CloseTryAgainLater, "nobody can say whether you still may; try again"}, false
}
