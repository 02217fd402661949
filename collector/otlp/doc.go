// Package otlp is the collector's front door: OTLP over HTTP (protobuf and JSON,
// plain, gzip or zstd) and over gRPC. It bounds what a request may cost before
// anything is decoded, hands the protobuf bytes to a Consumer, and turns the
// answer into the status that makes a sender retry or stop. It keeps nothing.
package otlp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/collector"
)

// Consumer acknowledges requests once they are durable. Its errors wrap the
// sentinels of controlbus; a *collector.RetryError says when to try again. It
// does not keep Request.Payload.
type Consumer interface {
	Consume(ctx context.Context, r collector.Request) (collector.Result, error)
}

// Config is the "otlp" section of the configuration file.
type Config struct {
	MaxRequest int64         `yaml:"max_request_bytes"` // of one request, decompressed
	MaxPending int64         `yaml:"max_pending_bytes"` // of all requests being read or made durable
	Timeout    time.Duration `yaml:"timeout"`           // for one request to become durable
}

// DefaultConfig suits a console with half a gigabyte of memory.
func DefaultConfig() Config {
	return Config{MaxRequest: 16 << 20, MaxPending: 128 << 20, Timeout: 30 * time.Second}
}

// Validate reports every problem at once, each under its own key.
func (c Config) Validate() error {
	var errs []error
	if c.MaxRequest < 64<<10 {
		errs = append(errs, fmt.Errorf("max_request_bytes: want at least 65536, have %d", c.MaxRequest))
	}
	if c.MaxPending < c.MaxRequest {
		errs = append(errs, fmt.Errorf("max_pending_bytes: want at least max_request_bytes (%d), have %d", c.MaxRequest, c.MaxPending))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("timeout: want a positive duration, have %v", c.Timeout))
	}
	return errors.Join(errs...)
}
