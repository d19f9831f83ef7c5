// A peer to compare with: one room in the shape of gorilla/websocket's chat example. A hub goroutine owns the clients and
// hands each message to a channel of each; every client has a read pump and a write pump, and the write pump puts what has
// queued up into one frame, with line breaks between. It speaks as much of townhall.v1 as the load generator needs, stores
// nothing and resumes nobody, so it does less for each message than a hall.
//
//	peer-gorilla-hub ADDRESS [QUEUE]
//
// QUEUE is how many messages may wait for a client, 256 as in the example. Whoever is slower is dropped: for a benchmark that
// must not lose, say more than its publishers ever have under way together.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// As in the example: how long a write may take, and when a silent client is asked whether it is still there.
	writeWait  = 10 * time.Second
	pongWait   = 60 * time.Second
	pingPeriod = pongWait * 9 / 10
	maxMessage = 64 * 1024
)

var upgrader = websocket.Upgrader{
	ReadBufferSize:  1024,
	WriteBufferSize: 1024,
	Subprotocols:    []string{"townhall.v1"},
	CheckOrigin:     func(*http.Request) bool { return true },
}

// command is what a client says.
type command struct {
	Type string          `json:"type"`
	Room string          `json:"room"`
	ID   string          `json:"id"`
	Text string          `json:"text"`
	Ref  json.RawMessage `json:"ref"`
}

type person struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// message is what everybody in the room gets.
type message struct {
	Room   string `json:"room"`
	Offset uint64 `json:"offset"`
	At     int64  `json:"at"`
	Type   string `json:"type"`
	ID     string `json:"id"`
	From   person `json:"from"`
	Text   string `json:"text"`
}

type joined struct {
	Type    string          `json:"type"`
	Room    string          `json:"room"`
	Epoch   string          `json:"epoch"`
	Offset  uint64          `json:"offset"`
	Backlog uint64          `json:"backlog"`
	Ref     json.RawMessage `json:"ref,omitempty"`
}

type accepted struct {
	Type   string          `json:"type"`
	Room   string          `json:"room"`
	ID     string          `json:"id"`
	Epoch  string          `json:"epoch"`
	Offset uint64          `json:"offset"`
	Ref    json.RawMessage `json:"ref,omitempty"`
}

func encode(reply any) []byte {
	bytes, err := json.Marshal(reply)
	if err != nil {
		log.Fatal(err) // these structs always have a JSON form
	}
	return bytes
}

type said struct {
	client  *client
	command command
}

// hub owns the set of clients and the order of the messages.
type hub struct {
	clients    map[*client]bool
	register   chan said
	unregister chan *client
	broadcast  chan said
	offset     uint64
	queue      int
}

func (h *hub) run() {
	for {
		select {
		case join := <-h.register:
			h.clients[join.client] = true
			h.hand(join.client, encode(joined{"joined", join.command.Room, "peer", h.offset, 0, join.command.Ref}))
		case c := <-h.unregister:
			h.drop(c)
		case say := <-h.broadcast:
			h.say(say)
		}
	}
}

func (h *hub) say(say said) {
	h.offset++
	c := say.command
	event := encode(message{c.Room, h.offset, time.Now().UnixMilli(), "message", c.ID, say.client.person, c.Text})
	for client := range h.clients {
		h.hand(client, event)
	}
	h.hand(say.client, encode(accepted{"accepted", c.Room, c.ID, "peer", h.offset, c.Ref}))
}

// hand never waits: a client whose queue is full is dropped.
func (h *hub) hand(c *client, bytes []byte) {
	if !h.clients[c] {
		return
	}
	select {
	case c.send <- bytes:
	default:
		h.drop(c)
	}
}

func (h *hub) drop(c *client) {
	if h.clients[c] {
		delete(h.clients, c)
		close(c.send)
	}
}

type client struct {
	hub    *hub
	conn   *websocket.Conn
	send   chan []byte
	person person
}

func (c *client) readPump() {
	defer func() {
		c.hub.unregister <- c
		c.conn.Close()
	}()
	c.conn.SetReadLimit(maxMessage)
	c.conn.SetReadDeadline(time.Now().Add(pongWait))
	c.conn.SetPongHandler(func(string) error { return c.conn.SetReadDeadline(time.Now().Add(pongWait)) })
	for {
		_, bytes, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		var command command
		if json.Unmarshal(bytes, &command) != nil {
			return
		}
		switch command.Type {
		case "join":
			c.hub.register <- said{c, command}
		case "say":
			c.hub.broadcast <- said{c, command}
		}
	}
}

func (c *client) writePump() {
	ticker := time.NewTicker(pingPeriod)
	defer func() {
		ticker.Stop()
		c.conn.Close()
	}()
	for {
		select {
		case bytes, open := <-c.send:
			c.conn.SetWriteDeadline(time.Now().Add(writeWait))
			if !open {
				c.conn.WriteMessage(websocket.CloseMessage, nil)
				return
			}
			if c.write(bytes) != nil {
				return
			}
		case <-ticker.C:
			c.conn.SetWriteDeadline(time.Now().Add(writeWait))
			if c.conn.WriteMessage(websocket.PingMessage, nil) != nil {
				return
			}
		}
	}
}

// write sends a message, and in the same frame whatever has queued up behind it.
func (c *client) write(bytes []byte) error {
	w, err := c.conn.NextWriter(websocket.TextMessage)
	if err != nil {
		return err
	}
	w.Write(bytes)
	for range len(c.send) {
		more, open := <-c.send
		if !open {
			break
		}
		w.Write([]byte{'\n'})
		w.Write(more)
	}
	return w.Close()
}

func (h *hub) serve(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // Upgrade has answered
	}
	welcome := map[string]any{"type": "welcome", "beat": 0}
	if conn.WriteMessage(websocket.TextMessage, encode(welcome)) != nil {
		conn.Close()
		return
	}
	name := r.URL.Query().Get("name")
	c := &client{hub: h, conn: conn, send: make(chan []byte, h.queue), person: person{"guest-000000000000000000000000", name}}
	go c.writePump()
	go c.readPump()
}

func main() {
	queue := 256
	var err error
	if len(os.Args) == 3 {
		queue, err = strconv.Atoi(os.Args[2])
	}
	if err != nil || queue < 0 || len(os.Args) < 2 || len(os.Args) > 3 {
		log.Fatal("usage: peer-gorilla-hub ADDRESS [QUEUE]")
	}
	h := &hub{
		clients:    make(map[*client]bool),
		register:   make(chan said),
		unregister: make(chan *client),
		broadcast:  make(chan said),
		queue:      queue,
	}
	go h.run()
	http.HandleFunc("/ws", h.serve)
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
