// Package broker runs a NATS server with JetStream inside the program, for the
// demo, so that it needs nothing installed. It is the real server with the real
// protocol on a loopback port: clients cannot tell, and neither can the agent.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Config is where the broker keeps its streams and listens.
type Config struct {
	Dir  string // streams
	Addr string // loopback address with port; port 0 takes a free one
}

// readyTimeout bounds how long recovering streams may take.
const readyTimeout = 30 * time.Second

// Broker is a NATS server in this process.
type Broker struct {
	srv *server.Server
}

// New prepares a broker and starts nothing.
func New(cfg Config, logger *slog.Logger) (*Broker, error) {
	addr, err := net.ResolveTCPAddr("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("broker: address %q: %w", cfg.Addr, err)
	}
	if !addr.IP.IsLoopback() {
		return nil, fmt.Errorf("broker: address %q: want a loopback address: the demo's broker asks nobody for a password", cfg.Addr)
	}
	port := addr.Port
	if port == 0 {
		port = server.RANDOM_PORT
	}
	srv, err := server.NewServer(&server.Options{
		ServerName: "demo",
		Host:       addr.IP.String(),
		Port:       port,
		HTTPHost:   addr.IP.String(),
		HTTPPort:   server.RANDOM_PORT, // monitoring, read-only
		JetStream:  true,
		StoreDir:   cfg.Dir,
		// The program handles signals and shows its own start.
		NoSigs: true,
		NoLog:  true,
		// A tap that stops reading must not slow the company down.
		NoFastProducerStall: true,
		MaxPayload:          8 << 20,
		JetStreamMaxMemory:  64 << 20,
		JetStreamMaxStore:   2 << 30,
	})
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	srv.SetLoggerV2(natsLog{logger}, false, false, false)
	return &Broker{srv: srv}, nil
}

// Start returns when clients can connect.
func (b *Broker) Start(ctx context.Context) error {
	b.srv.Start()
	deadline := time.Now().Add(readyTimeout)
	for !b.srv.ReadyForConnections(50 * time.Millisecond) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(deadline) || !b.srv.Running() {
			return errors.New("broker: server did not start; is another one using its directory?")
		}
	}
	if !b.srv.JetStreamEnabled() {
		return errors.New("broker: JetStream did not start; is its directory writable?")
	}
	return nil
}

// URL is where clients connect, once Start has returned.
func (b *Broker) URL() string { return b.srv.ClientURL() }

// MonitorURL is where the server tells about itself, once Start has returned.
func (b *Broker) MonitorURL() string { return "http://" + b.srv.MonitorAddr().String() }

// Run keeps the broker until ctx ends and returns when it has stopped.
func (b *Broker) Run(ctx context.Context) error {
	<-ctx.Done()
	b.Stop()
	return nil
}

// Stop ends the broker and waits for it. It may be called more than once.
func (b *Broker) Stop() {
	b.srv.Shutdown()
	b.srv.WaitForShutdown()
}

// natsLog hands on what the server says about trouble and keeps the rest: its
// greeting and the comings and goings of clients are of no interest here.
type natsLog struct{ log *slog.Logger }

func (natsLog) Noticef(string, ...any) {}
func (natsLog) Debugf(string, ...any)  {}
func (natsLog) Tracef(string, ...any)  {}
func (l natsLog) Warnf(format string, v ...any) {
	l.log.Warn("broker", slog.String("said", said(format, v)))
}
func (l natsLog) Errorf(format string, v ...any) {
	l.log.Error("broker", slog.String("said", said(format, v)))
}
func (l natsLog) Fatalf(format string, v ...any) { l.Errorf(format, v...) }

func said(format string, v []any) string { return strings.TrimSpace(fmt.Sprintf(format, v...)) }
