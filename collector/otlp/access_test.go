package otlp_test

import (
	"context"
	"fmt"
	"testing"

	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/signalbox-dev/signalbox/collector/otlp"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// TestGRPCWantsACredential sends as nobody, as an agent, in another agent's
// name, and as a service.
func TestGRPCWantsACredential(t *testing.T) {
	r := receiver(otlp.DefaultConfig(), &keeper{})
	r.Guard(func(ctx context.Context, token string) (context.Context, error) {
		switch token {
		case "agent":
			return access.With(ctx, access.Identity{ID: "1", Name: "a1", Kind: access.KindAgent, Grants: access.Everywhere(access.Agent)}), nil
		case "service":
			return access.With(ctx, access.Identity{ID: "2", Name: "shop", Kind: access.KindToken, Grants: access.Everywhere(access.Sender)}), nil
		case "slow":
			return ctx, fmt.Errorf("the state does not answer: %w", controlbus.ErrUnavailable)
		}
		return ctx, access.ErrUnauthenticated
	})
	client := plogotlp.NewGRPCClient(dial(t, r))
	for _, c := range []struct {
		token, sender string
		want          codes.Code
	}{
		{"", "", codes.Unauthenticated}, {"other", "", codes.Unauthenticated}, {"slow", "", codes.Unavailable},
		{"agent", "a1/spool", codes.OK}, {"agent", "", codes.OK}, {"agent", "a2/spool", codes.PermissionDenied}, {"agent", "a1x/spool", codes.PermissionDenied},
		{"service", "", codes.OK}, {"service", "a1/spool", codes.PermissionDenied},
	} {
		ctx := t.Context()
		if c.token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
		}
		if c.sender != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, controlbus.HeaderSender, c.sender, controlbus.HeaderBatch, "1")
		}
		_, err := client.Export(ctx, logs("x"))
		if code := status.Code(err); code != c.want {
			t.Errorf("token %q as sender %q: got %v (%v), want %v", c.token, c.sender, code, err, c.want)
		}
	}
}
