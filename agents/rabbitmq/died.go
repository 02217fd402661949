package rabbitmq

import "github.com/signalbox-dev/signalbox/agents"

var _ agents.Reviver = (*Adapter)(nil)

// DiedIn reads the newest death. Dead-lettering does not leave the virtual host,
// so the queue is one of the host that the message lies in.
func (a *Adapter) DiedIn(channel string, m *agents.Message) string {
	queue := ""
	for _, h := range m.Headers {
		switch h.Key {
		case "x-death":
			list, _ := h.Value.([]any)
			if len(list) == 0 {
				continue
			}
			newest, _ := list[0].(map[string]any)
			if q, _ := newest["queue"].(string); q != "" {
				return a.named(channel, q)
			}
		case "x-first-death-queue":
			queue, _ = h.Value.(string)
		}
	}
	if queue == "" {
		return ""
	}
	return a.named(channel, queue)
}

// named is a queue's name as a channel of the host that another channel is in.
func (a *Adapter) named(channel, queue string) string {
	vhost, _ := a.resolve(channel)
	if len(a.vhosts) == 0 || vhost == a.vhosts[0] {
		return queue
	}
	return vhost + "/" + queue
}
