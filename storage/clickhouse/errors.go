package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strings"

	driver "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Error codes of ClickHouse that decide something here.
const (
	codeUnknownTable    = 60
	codeUnknownDatabase = 81
	codeTimeout         = 159
	codeSlow            = 160 // TOO_SLOW: estimated to exceed max_execution_time
	codeDiskFull        = 243 // NOT_ENOUGH_SPACE
	codeCancelled       = 394
)

// permanent are the codes that say: this content, whatever the server's state.
// Everything else is worth another try. An unknown table or database is not
// here: it is an operator's mistake, and data must not be thrown away for it.
var permanent = map[int32]bool{
	6: true, 7: true, 16: true, 20: true, 26: true, 27: true, 33: true, 34: true, 38: true,
	41: true, 43: true, 44: true, 47: true, 48: true, 49: true, 50: true, 53: true, 62: true,
	69: true, 70: true, 72: true, 73: true, 117: true, 121: true, 131: true, 190: true,
	321: true, 349: true, 396: true, 691: true,
}

// exception is an error the server answered with.
type exception struct {
	Code    int32
	Message string
}

func (e *exception) Error() string { return e.Message }

// Unwrap tells the two sentinels apart that callers ask for.
func (e *exception) Unwrap() error {
	if permanent[e.Code] {
		return controlbus.ErrInvalid
	}
	return controlbus.ErrUnavailable
}

// code is the server's error code in err, 0 when there is none.
func code(err error) int32 {
	var own *exception
	if errors.As(err, &own) {
		return own.Code
	}
	var ex *driver.Exception
	if errors.As(err, &ex) {
		return ex.Code
	}
	return 0
}

// timedOut says that err is the end of a query's time budget, struck on
// either side.
func timedOut(err error) bool {
	switch code(err) {
	case codeTimeout, codeSlow, codeCancelled:
		return true
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// wrap turns an error of the driver or the transport into one that callers can
// judge: what was attempted, the server's words, and a sentinel.
func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, controlbus.ErrInvalid) ||
		errors.Is(err, controlbus.ErrUnavailable) || errors.Is(err, controlbus.ErrNotFound) || errors.Is(err, controlbus.ErrTooLarge) {
		return fmt.Errorf("clickhouse: %s: %w", what, err)
	}
	if c := code(err); permanent[c] {
		return fmt.Errorf("clickhouse: %s: %w: %w", what, controlbus.ErrInvalid, err)
	}
	return fmt.Errorf("clickhouse: %s: %w: %w", what, controlbus.ErrUnavailable, err)
}

// brief cuts a server's message to what fits a log line.
func brief(s string) string {
	s = strings.TrimSpace(s)
	const most = 1000
	if len(s) > most {
		s = s[:most] + "…"
	}
	return s
}

// notFound is an answer, not a failure: wrap leaves it alone.
var notFound = controlbus.ErrNotFound
