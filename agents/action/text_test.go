package action

import (
	"fmt"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

func TestTexts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ got, want string }{
		{size(0), "0 bytes"}, {size(1536), "1.5 KiB"}, {size(4 << 30), "4 GiB"}, {size(4<<30 - 1), "4.0 GiB"}, {size(700 << 20), "700 MiB"},
		{span(168 * time.Hour), "7 days"}, {span(24 * time.Hour), "24 hours"}, {span(time.Hour), "1 hour"}, {span(90 * time.Minute), "1h30m0s"},
		{sentence(fmt.Errorf("rabbitmq: look into %q: %w: the messages would be marked", "q", controlbus.ErrConflict), controlbus.ErrConflict), "The messages would be marked."},
		{sentence(fmt.Errorf("a: %w", controlbus.ErrDenied), controlbus.ErrConflict), "a: denied"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
