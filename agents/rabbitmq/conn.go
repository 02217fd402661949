package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// conn is an AMQP connection whose calls end. The library's calls take no
// context and may wait for ever on a dead link, so the socket underneath is
// kept to be closed when a deadline has passed.
type conn struct {
	*amqp.Connection
	// shared: many callers use it, so that one who gives up must not cut it. Their
	// calls last as long as the broker takes, at most the timeout.
	shared bool
	mu     sync.Mutex
	raw    net.Conn
}

func (a *Adapter) dial(ctx context.Context, vhost, purpose string) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	user, password, err := a.cfg.credentials()
	if err != nil {
		return nil, fmt.Errorf("rabbitmq: credentials: %w", err)
	}
	u, err := url.Parse(a.cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("rabbitmq: %w: url", controlbus.ErrInvalid)
	}
	var tlsConf *tls.Config
	if u.Scheme == "amqps" {
		if tlsConf, err = a.cfg.TLS.load(u.Hostname()); err != nil {
			return nil, fmt.Errorf("rabbitmq: %w", err)
		}
	}
	u.User, u.Path, u.RawPath = nil, "/", ""
	props := amqp.NewConnectionProperties()
	props["connection_name"] = "signalbox " + a.id.Agent + "." + a.id.Incarnation + " " + purpose
	c := &conn{}
	stop := context.AfterFunc(ctx, c.cut) // the handshake takes no context either
	defer stop()
	c.Connection, err = amqp.DialConfig(u.String(), amqp.Config{
		Vhost: vhost, Heartbeat: a.cfg.Heartbeat, TLSClientConfig: tlsConf, Properties: props,
		SASL: []amqp.Authentication{&amqp.PlainAuth{Username: user, Password: password}},
		Dial: func(network, addr string) (net.Conn, error) {
			raw, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			deadline, _ := ctx.Deadline()
			if err := raw.SetDeadline(deadline); err != nil {
				raw.Close()
				return nil, err
			}
			c.mu.Lock()
			c.raw = raw
			c.mu.Unlock()
			return raw, nil
		},
	})
	if err != nil {
		c.cut()
		return nil, fmt.Errorf("rabbitmq: connect to %s: %w", u.Host, connErr(ctx, err))
	}
	return c, nil
}

// cut closes the socket, which ends every call on the connection.
func (c *conn) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.raw != nil {
		c.raw.Close()
	}
}

// do runs a call of the library and cuts the connection when ctx ends first, or,
// where it is shared, after the timeout alone.
func (c *conn) do(ctx context.Context, timeout time.Duration, call func() error) error {
	if c.shared {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stop := context.AfterFunc(ctx, c.cut)
	err := call()
	if !stop() && err != nil {
		return fmt.Errorf("%w: %w", agents.ErrNotConnected, context.Cause(ctx))
	}
	return connErr(ctx, err)
}

// channel opens a channel.
func (c *conn) channel(ctx context.Context, timeout time.Duration) (*amqp.Channel, error) {
	var ch *amqp.Channel
	err := c.do(ctx, timeout, func() (err error) {
		ch, err = c.Channel()
		return err
	})
	return ch, err
}

// end closes the connection in order, or cuts it after a while.
func (c *conn) end(timeout time.Duration) {
	if c == nil || c.Connection == nil {
		return
	}
	_ = c.do(context.Background(), timeout, c.Close)
	c.cut()
}

// connErr gives the library's errors our sentinels.
func connErr(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var ae *amqp.Error
	if errors.As(err, &ae) {
		switch ae.Code {
		case amqp.AccessRefused, amqp.NotAllowed:
			return fmt.Errorf("%w: %w", controlbus.ErrDenied, err)
		case amqp.NotFound:
			return fmt.Errorf("%w: %w", controlbus.ErrNotFound, err)
		case amqp.ResourceLocked:
			return fmt.Errorf("%w: %w", controlbus.ErrConflict, err)
		case amqp.PreconditionFailed, amqp.NotImplemented:
			return fmt.Errorf("%w: %w", controlbus.ErrUnsupported, err)
		}
	}
	return fmt.Errorf("%w: %w", agents.ErrNotConnected, err)
}
