package link

import (
	"errors"
	"fmt"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/protobuf/proto"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// socket is one WebSocket with OpAMP messages on it, either end. One goroutine
// runs write, another calls read.
type socket struct {
	conn *websocket.Conn
	most int // bytes of a message written
	out  chan proto.Message
	gone *gate
	// heard is called for each sign of life; it may be nil.
	heard func()
}

func newSocket(conn *websocket.Conn, in, out int) *socket {
	s := &socket{conn: conn, most: out, out: make(chan proto.Message, 64), gone: newGate()}
	conn.SetReadLimit(int64(in)) // over it the peer is told 1009
	s.alive()
	conn.SetPongHandler(func(string) error { s.alive(); return nil })
	ping := conn.PingHandler()
	conn.SetPingHandler(func(data string) error { s.alive(); return ping(data) })
	return s
}

func (s *socket) alive() {
	_ = s.conn.SetReadDeadline(time.Now().Add(pongWithin))
	if s.heard != nil {
		s.heard()
	}
}

// send queues a message. It waits for room until the socket is gone: a peer that
// does not read is cut by write's deadline.
func (s *socket) send(m proto.Message) error {
	select {
	case s.out <- m:
		return nil
	case <-s.gone.c:
		return ErrClosed
	}
}

// write sends what is queued, and pings, until the socket is gone. It closes the
// connection.
func (s *socket) write() {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	defer s.conn.Close()
	defer s.gone.shut()
	for {
		select {
		case m := <-s.out:
			b, err := marshal(m, s.most)
			if err != nil {
				return
			}
			_ = s.conn.SetWriteDeadline(time.Now().Add(writeWithin))
			if err := s.conn.WriteMessage(websocket.BinaryMessage, b); err != nil {
				return
			}
		case <-ping.C:
			if err := s.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeWithin)); err != nil {
				return
			}
		case <-s.gone.c:
			return
		}
	}
}

// read reads the next message into m. A message that cannot be read is
// controlbus.ErrInvalid; after any other error the socket is gone.
func (s *socket) read(m proto.Message) error {
	kind, b, err := s.conn.ReadMessage()
	if err != nil {
		s.gone.shut()
		return err
	}
	s.alive()
	if kind != websocket.BinaryMessage {
		return fmt.Errorf("link: %w: want binary messages", controlbus.ErrInvalid)
	}
	return unmarshal(b, m)
}

// close says goodbye with a status and cuts.
func (s *socket) close(code int, why string) {
	_ = s.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, why), time.Now().Add(time.Second))
	s.gone.shut()
}

// clean says that the peer meant to end the connection.
func clean(err error) bool {
	var c *websocket.CloseError
	return errors.As(err, &c) && (c.Code == websocket.CloseNormalClosure || c.Code == websocket.CloseGoingAway)
}
