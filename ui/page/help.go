package page

// Help is what the help drawer and the help page say about an area.
type Help struct{ Area, Title, Text string }

// helps are in the navigation's order. An area that is not here has no help of
// its own.
var helps = []Help{
	{"overview", "Overview", "The situation in a sentence, what needs a person, and what changed in the last hour against the same hour a day before. A gap in a chart is a time when nobody watched; the step that is not over yet is not drawn."},
	{"channels", "Channels", "What brokers say of each channel (waiting, rates, consumers) beside what taps saw pass. Cells show what waits against the largest backlog here. A channel's page can ask its agent for a tap."},
	{"messages", "Messages", "Copies of what passed, from the store: nothing is taken from a broker by searching. The filter completes fields and values as you write (arrows move, Tab takes, Enter searches) and says in English what it understood; a plain word is looked for in payloads as a whole word. The histogram counts the whole range: drag over it, or move its ends with the arrow keys and press Enter, to narrow the time. Above a result stands what was looked at and why the search stopped; Continue goes on from there. A message's page shows its payload, headers and history."},
	{"live", "Live tap", "Messages as they pass. It says how many matched, how many are left out by sampling, and how many were dropped because this browser was slow."},
	{"probes", "Probes", "Test messages on a schedule: each is marked, sent into a channel as a command, and looked for at another by the taps. Latency is by the agents' clocks with their offsets taken out. Late means after the deadline, lost that no tap saw it."},
	{"invalid", "Invalid messages", "Records that nobody could understand, with their sender, the reason and their bytes."},
	{"control", "Control bus", "Every command with who asked, why, what it was to do and what it did. A command is previewed first: counted, aged and sampled; what was shown is frozen, and the agent compares it with what it finds before it touches anything. Jobs go on without this page and look the same to everybody. What ended unknown is never repeated by itself."},
	{"detours", "Detours", "Channels whose messages take a way through steps, and channels whose consumers are paused: whose it is, why, until when, what waits behind it. Ending one works off what waits before the direct way is restored."},
	{"agents", "Agents", "Who is heard from, which brokers and taps each agent holds, what it buffers on its disk and what it lost."},
	{"health", "Health", "How Signalbox itself is: whether it keeps up, what it shed, how large the store is, how long reading takes, and what to do where something is not well."},
	{"audit", "Audit", "Who did, asked for and read what. Entries are only ever added: each is chained to the one before, and all are leaves of a tree whose signed heads can be kept on another machine. Verify now computes both anew; a trail that was cut off is found by heads kept elsewhere alone."},
	{"settings", "Settings", "How the console looks to you, and what it runs with."},
}

// HelpOn is the help on an area.
func HelpOn(area string) (Help, bool) {
	for _, h := range helps {
		if h.Area == area {
			return h, true
		}
	}
	return Help{}, false
}

// Helps is the help on everything.
func Helps() []Help { return helps }
