// Package probe sends EIP Test Messages and watches for their arrival: one by
// hand, or the same again and again on a schedule, which is a Probe. A run is
// sent as a command through the control bus, so it is allowed, recorded and
// refused like any other, and is seen again by the taps: at the output channel
// of the same broker or of another one.
//
// cmd/signalbox makes the Service, runs it, and puts the Watcher beside the live
// taps. Which agent sends, and how, is controlbus/command's.
package probe
