package company

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// Phases is a bad time that comes back: from First after the start for Length,
// and again every Every. The zero value never comes.
type Phases struct {
	First, Length, Every time.Duration
}

// active says whether it is that time.
func (p Phases) active(sinceStart time.Duration) bool {
	since := sinceStart - p.First
	if since < 0 || p.Length <= 0 {
		return false
	}
	if p.Every <= 0 {
		return since < p.Length
	}
	return since%p.Every < p.Length
}

// Faults says how things go wrong. Shares are between 0 and 1.
type Faults struct {
	Poison    float64 // orders with a field that order-service does not know
	Abandoned float64 // carts that never become orders
	Declined  float64 // cards that are declined
	Gateway   float64 // calls the payment provider fails on a good day
	FraudLate float64 // fraud checks that answer too late
	Bounced   float64 // mails that are not accepted

	Outage     Phases // of the payment provider
	SlowLabels Phases // of the label printers
}

// DefaultFaults shows every kind of failure within the first minute.
func DefaultFaults() Faults {
	return Faults{
		Poison: .02, Abandoned: .08, Declined: .03, Gateway: .005, FraudLate: .01, Bounced: .01,
		Outage:     Phases{First: 6 * time.Second, Length: 50 * time.Second, Every: 4 * time.Minute},
		SlowLabels: Phases{First: 90 * time.Second, Length: time.Minute, Every: 5 * time.Minute},
	}
}

// chance is a service's source of luck. Services have one each, drawn from the
// seed and their name, so that one service's luck does not change another's.
type chance struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func newChance(seed uint64, service string) *chance {
	h := fnv.New64a()
	_, _ = h.Write([]byte(service)) // never fails
	return &chance{rng: rand.New(rand.NewPCG(seed, h.Sum64()))}
}

// hit is true with probability p.
func (c *chance) hit(p float64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rng.Float64() < p
}

// latency draws from a log-normal distribution, which is what latencies of
// real services look like: most near the median, a few very late.
func (c *chance) latency(median time.Duration, spread float64) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(float64(median) * math.Exp(spread*c.rng.NormFloat64()))
}

func (c *chance) intN(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rng.IntN(n)
}
