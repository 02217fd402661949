package company

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// provider is the payment provider: another company, reached over HTTP, that
// nobody can look into. It runs on a loopback port of its own.
type provider struct {
	luck   *chance
	faults Faults
	begin  time.Time
}

type providerCapture struct {
	PaymentID int64  `json:"paymentId"`
	Token     string `json:"token"`
	Amount    money  `json:"amount"`
}

type providerAnswer struct {
	Status    string `json:"status"` // captured or declined
	Reference string `json:"reference,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

// serve answers on l until ctx ends.
func (p *provider) serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v2/captures", p.capture)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second,
		// Requests that hang in an outage end when the provider does.
		BaseContext: func(net.Listener) context.Context { return ctx }}
	closed := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { closed <- srv.Close() })
	err := srv.Serve(l)
	if !stop() {
		err = errors.Join(err, <-closed)
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it ended because it was told to
	}
	return fmt.Errorf("payment provider: %w", err)
}

func (p *provider) capture(w http.ResponseWriter, r *http.Request) {
	var c providerCapture
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&c); err != nil {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	if p.faults.Outage.active(time.Since(p.begin)) {
		// Half of an outage is a database that does not answer, half is a load
		// balancer that does.
		if p.luck.hit(.5) {
			_ = sleep(r.Context(), 10*time.Second) // the caller hangs up before that
		}
		http.Error(w, "upstream connect error or disconnect/reset before headers", http.StatusServiceUnavailable)
		return
	}
	if sleep(r.Context(), p.luck.latency(55*time.Millisecond, .6)) != nil {
		return
	}
	if p.luck.hit(p.faults.Gateway) {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	answer := providerAnswer{Status: "captured", Reference: fmt.Sprintf("cap_%x", c.PaymentID)}
	if p.luck.hit(p.faults.Declined) {
		reasons := []string{"insufficient_funds", "do_not_honor", "expired_card"}
		answer = providerAnswer{Status: "declined", Reason: reasons[p.luck.intN(len(reasons))]}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // the caller has gone; it will ask again
}

// drain lets a connection be used again.
func drain(body io.ReadCloser) {
	_, _ = io.Copy(io.Discard, io.LimitReader(body, 64<<10)) // the answer is known already
	_ = body.Close()
}
