package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// stage is a part of the program that runs until it is told to stop.
type stage struct {
	name string
	// run blocks until ctx ends and everything it started has stopped.
	run func(ctx context.Context) error
	// ready, where set, is closed once the next stage may start.
	ready <-chan struct{}
}

// named says which part an error is of, unless the error says so itself.
func named(name string, err error) error {
	if strings.HasPrefix(err.Error(), name+":") {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}

// runStages starts the stages in order, each when the one before it is ready,
// and stops them in reverse order when ctx ends or one of them returns: each is
// fully stopped, or given up after grace, before the one above it is told.
func runStages(ctx context.Context, log *slog.Logger, grace time.Duration, stages ...stage) error {
	type running struct {
		stage
		stop context.CancelFunc
		done chan struct{}
	}
	failed := make(chan error, len(stages))
	var up []running
	var cause error

	for _, s := range stages {
		stageCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
		r := running{stage: s, stop: stop, done: make(chan struct{})}
		up = append(up, r)
		go func() {
			defer close(r.done)
			err := s.run(stageCtx)
			switch {
			case stageCtx.Err() != nil:
				if err != nil && !errors.Is(err, context.Canceled) {
					log.WarnContext(ctx, "stage ended with an error", "stage", s.name, "error", err)
				}
			case err == nil:
				failed <- fmt.Errorf("%s ended by itself", s.name)
			default:
				failed <- named(s.name, err)
			}
		}()
		if s.ready != nil {
			select {
			case <-s.ready:
			case cause = <-failed:
			case <-ctx.Done():
			}
		}
		if cause != nil || ctx.Err() != nil {
			break
		}
	}
	if cause == nil {
		select {
		case <-ctx.Done():
		case cause = <-failed:
		}
	}
	for i := len(up) - 1; i >= 0; i-- {
		r := up[i]
		r.stop()
		select {
		case <-r.done:
		case <-time.After(grace):
			log.ErrorContext(ctx, "stage did not stop in time and is left behind", "stage", r.name, "grace", grace)
		}
	}
	return cause
}
