// Package controlbus is the vocabulary of Signalbox: messages and the channels
// they travel on, agents and the taps they hold, and the errors everybody
// understands. Names follow Enterprise Integration Patterns; telemetry
// attributes follow the OpenTelemetry messaging conventions.
//
// The package does nothing by itself and imports the standard library alone,
// so every other package may import it.
package controlbus
