// Package detour holds an agent's EIP Detours: for a while a channel's messages
// take a way through steps before they reach its consumers. A Manager keeps them
// in a file and runs a worker for each; it is composed into the agent's commands
// by package agents/action.
//
// A worker brings its broker to what the file says is wanted, reading what is
// there first, so that whatever a crash left half done is completed:
//
//	         InstallGate             SetGate on              SetGate off
//	absent ─────────────▶ installed ─────────────▶ on ─────────────────▶ draining
//	   ▲                                                                     │ backlog empty
//	   └───────────────────────── removing ◀─────────────────────────────────┘
//	         RemoveGate
//
// Each transition is in the file before the broker hears of it. A gate leads the
// channel's messages into a backlog channel, from which a stage takes them
// through the steps and gives them to the channel itself. Where a broker has no
// gate, or the detour names where to, it is a junction: a stage takes from the
// channel and sends to another one.
//
// A stage sends first, waits for the broker's word, and settles the source then:
// a crash in between sends a message twice, with the same sb-detour header, and
// loses none. What a step refuses is parked or passed unchanged, as the detour
// says; nothing is dropped.
package detour
