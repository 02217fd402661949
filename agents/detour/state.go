package detour

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// technique is how a detour is brought about.
type technique string

const (
	byGate     technique = "gate"     // the broker leads messages into a backlog
	byJunction technique = "junction" // the agent takes from one channel and sends to another
	byPause    technique = "pause"    // the broker stops the consumers itself
)

// phase is how far a detour has been brought, as it was noted before the broker
// was asked. What the broker says counts where the two differ.
type phase string

const (
	phaseInstalling phase = "installing"
	phaseInstalled  phase = "installed"
	phaseOn         phase = "on"
	phaseDraining   phase = "draining"
	phaseRemoving   phase = "removing"
)

// record is one detour in the file.
type record struct {
	Detour    controlbus.Detour      `json:"detour"`
	Kind      controlbus.CommandKind `json:"kind"` // detour or pause
	Broker    string                 `json:"broker"`
	Channel   string                 `json:"channel"`
	Consumer  string                 `json:"consumer,omitempty"` // of a pause by the broker
	Command   controlbus.CommandID   `json:"command"`
	Technique technique              `json:"technique"`
	Words     string                 `json:"words"` // the technique, for people

	Wanted  bool      `json:"wanted"` // false: to be drained and removed
	Phase   phase     `json:"phase"`
	Lived   bool      `json:"lived"`   // it has been on: an order that fails does not take it back
	Since   time.Time `json:"since"`   // of the phase
	Made    time.Time `json:"made"`    // when it was first ordered
	Ordered time.Time `json:"ordered"` // and last
	Backlog string    `json:"backlog"` // of its gate
	Park    string    `json:"park"`    // of its own
	Hold    string    `json:"hold"`    // where a hold step behind others keeps messages

	// After is, of each channel that is taken from and keeps what has been read,
	// the last position it had when it was ordered: it is not taken from its
	// beginning. Position is the last one settled in a junction's own channel.
	After    map[string]string `json:"after,omitempty"`
	Position uint64            `json:"position,omitempty"`

	// Left is how much of its time was left at Saved. While the agent lives its
	// monotonic clock counts; the wall clock only for the time it was down.
	Left  time.Duration `json:"left_ns"`
	Saved time.Time     `json:"saved"`

	Counts counts `json:"counts"`
}

// parkedIn is the channel for what a step refuses; empty before there is one.
func (r *record) parkedIn() string {
	if r.Detour.Park != "" {
		return r.Detour.Park
	}
	return r.Park
}

type counts struct {
	In, Passed, Refused, Copied, Failed int64
}

// leftover is a park channel whose detour is gone; it goes when it is empty.
type leftover struct {
	Broker string `json:"broker"`
	ID     string `json:"id"`
}

type contents struct {
	Version   int        `json:"version"`
	Detours   []record   `json:"detours"`
	Leftovers []leftover `json:"leftovers,omitempty"`
}

const stateVersion = 1

func load(file string) (contents, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return contents{Version: stateVersion}, nil
	}
	var c contents
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	switch {
	case err != nil:
		return c, fmt.Errorf("detour: read %s: %w", file, err)
	case c.Version != stateVersion:
		return c, fmt.Errorf("detour: %s is of version %d, this agent knows %d: start the newer agent, which wrote it", file, c.Version, stateVersion)
	}
	return c, nil
}

// store replaces the file: after a crash it is the old one or the new one.
func store(file string, c contents) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("detour: state: %w", err)
	}
	dir := filepath.Dir(file)
	tmp, err := os.CreateTemp(dir, ".detours-*")
	if err != nil {
		return fmt.Errorf("detour: state: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // renamed, when all went well
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("detour: state: %w", err)
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return fmt.Errorf("detour: state: %w", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("detour: state: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("detour: state: %w", err)
	}
	return nil
}
