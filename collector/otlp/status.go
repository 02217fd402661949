package otlp

import (
	"context"
	"errors"
	"net/http"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// outcome is how a refusal looks on the wire. Retryable statuses are those of
// the OTLP specification: HTTP 429, 502, 503, 504; gRPC UNAVAILABLE, and
// RESOURCE_EXHAUSTED only with a delay.
type outcome struct {
	http  int
	grpc  codes.Code
	after time.Duration // 0: do not send it again
}

// statuses turns sentinels into statuses. What is not listed is our own fault
// and may be storable data, so it is retryable.
var statuses = []struct {
	err error
	outcome
}{
	{controlbus.ErrTooLarge, outcome{http.StatusRequestEntityTooLarge, codes.InvalidArgument, 0}},
	{controlbus.ErrUnsupported, outcome{http.StatusUnsupportedMediaType, codes.Unimplemented, 0}},
	{controlbus.ErrOverloaded, outcome{http.StatusTooManyRequests, codes.ResourceExhausted, time.Second}},
	{controlbus.ErrUnavailable, outcome{http.StatusServiceUnavailable, codes.Unavailable, 5 * time.Second}},
	{access.ErrUnauthenticated, outcome{http.StatusUnauthorized, codes.Unauthenticated, 0}},
	{controlbus.ErrDenied, outcome{http.StatusForbidden, codes.PermissionDenied, 0}},
	{controlbus.ErrInvalid, outcome{http.StatusBadRequest, codes.InvalidArgument, 0}},
	{context.DeadlineExceeded, outcome{http.StatusServiceUnavailable, codes.Unavailable, 5 * time.Second}},
	{context.Canceled, outcome{http.StatusServiceUnavailable, codes.Unavailable, time.Second}},
}

func outcomeOf(err error) outcome {
	found := outcome{http.StatusServiceUnavailable, codes.Unavailable, 5 * time.Second}
	for _, s := range statuses {
		if errors.Is(err, s.err) {
			found = s.outcome
			break
		}
	}
	if retry := (*collector.RetryError)(nil); errors.As(err, &retry) && found.after > 0 && retry.After > 0 {
		found.after = retry.After
	}
	return found
}

// grpcStatus is the refusal as gRPC tells it, with RetryInfo where a new
// attempt makes sense.
func grpcStatus(err error) *status.Status {
	o := outcomeOf(err)
	s := status.New(o.grpc, err.Error())
	if o.after == 0 {
		return s
	}
	with, detailErr := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(o.after)})
	if detailErr != nil {
		return s
	}
	return with
}
