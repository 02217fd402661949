// Package command is what an operator does, whichever way it is asked for: pages,
// API and CLI call the same Service. It takes previews, binds commands to them,
// hands them to the ledger, turns a selection of stored messages into what an
// agent replays, and finds the way back for an undo.
//
// It leaves consent, durability and the audit trail to controlbus/ledger, the way
// to the agents to controlbus/link, and every effect to the agents.
package command
