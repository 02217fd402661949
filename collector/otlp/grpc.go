package otlp

import (
	"context"
	"net/http"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // senders may compress
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/tap"

	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// GRPCServer returns a server for the three OTLP services. The caller serves
// and stops it. Requests reach the consumer as the bytes that were sent; pdata
// is not involved.
func (r *Receiver) GRPCServer(opts ...grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(append([]grpc.ServerOption{
		grpc.ForceServerCodecV2(rawCodec{}),
		grpc.MaxRecvMsgSize(int(min(grpcMost, r.cfg.MaxRequest))),
		grpc.MaxConcurrentStreams(32),
		grpc.ConnectionTimeout(20 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 10 * time.Minute, Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.InTapHandle(r.admit),
	}, opts...)...)
	for _, d := range []struct {
		service string
		signal  collector.Signal
	}{
		{"opentelemetry.proto.collector.logs.v1.LogsService", collector.Logs},
		{"opentelemetry.proto.collector.trace.v1.TraceService", collector.Traces},
		{"opentelemetry.proto.collector.metrics.v1.MetricsService", collector.Metrics},
	} {
		s.RegisterService(&grpc.ServiceDesc{
			ServiceName: d.service,
			HandlerType: (*any)(nil),
			Methods: []grpc.MethodDesc{{MethodName: "Export", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				return r.export(ctx, d.signal, decode)
			}}},
		}, nil)
	}
	return s
}

// grpcMost is the largest message of a call, and what a call pays the budget
// before its message is read: gRPC reads and decompresses a message as a whole
// before it asks anybody. It is gRPC's own default, which senders know to keep
// to; larger requests go over HTTP.
const grpcMost = 4 << 20

// admit refuses calls while too much is in flight, before their bytes are read,
// and ends those that do not come to an end themselves.
func (r *Receiver) admit(ctx context.Context, info *tap.Info) (context.Context, error) {
	if r.authorize != nil {
		token := ""
		if v := info.Header.Get("authorization"); len(v) > 0 {
			token = access.Bearer(http.Header{"Authorization": v[:1]})
		}
		known, err := r.authorize(ctx, token)
		if err != nil {
			return nil, grpcStatus(err).Err()
		}
		ctx = known
	}
	paid := min(grpcMost, r.cfg.MaxRequest)
	if !r.pending.take(paid) {
		return nil, grpcStatus(errBudget).Err()
	}
	context.AfterFunc(ctx, func() { r.pending.give(paid) })
	limited, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	context.AfterFunc(ctx, cancel)
	return limited, nil
}

func (r *Receiver) export(ctx context.Context, s collector.Signal, decode func(any) error) (any, error) {
	var raw rawMessage
	res, err := func() (collector.Result, error) {
		if err := decode(&raw); err != nil {
			return collector.Result{}, err
		}
		req := collector.Request{Signal: s, Payload: raw}
		md, _ := metadata.FromIncomingContext(ctx)
		if err := numbering(&req, func(key string) string {
			if v := md.Get(key); len(v) > 0 {
				return v[0]
			}
			return ""
		}); err != nil {
			return collector.Result{}, err
		}
		return r.consume(ctx, req)
	}()
	if err != nil {
		st := grpcStatus(err)
		r.count("grpc", s, st.Code().String(), len(raw))
		return nil, st.Err()
	}
	r.count("grpc", s, "OK", len(raw))
	return response(s, res, false)
}

// rawMessage is a protobuf message as bytes.
type rawMessage []byte

// rawCodec leaves messages as they are. Answers are protobuf already.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*rawMessage) = data.Materialize()
	return nil
}
