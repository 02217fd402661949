package company

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// firstPaymentID is beyond what a float64 holds exactly, as identifiers of
// payment providers are. A tool that reads numbers as floats shows the wrong one.
const firstPaymentID = 9007199254740993127

type money struct {
	Value    string `json:"value"` // decimal text: money is not a float
	Currency string `json:"currency"`
}

func euros(cents int64) money {
	return money{Value: fmt.Sprintf("%d.%02d", cents/100, cents%100), Currency: "EUR"}
}

// cents reads a value back; orders of this company have no other form.
func (m money) cents() (int64, error) {
	var whole, part int64
	if _, err := fmt.Sscanf(m.Value, "%d.%02d", &whole, &part); err != nil {
		return 0, fmt.Errorf("amount %q: %w", m.Value, err)
	}
	return whole*100 + part, nil
}

type card struct {
	Token   string `json:"token"`
	PAN     string `json:"pan"`
	Holder  string `json:"holder"`
	Expires string `json:"expires"`
}

type item struct {
	SKU   string `json:"sku"`
	Name  string `json:"name"`
	Qty   int64  `json:"qty"`
	Price string `json:"price"`
}

type customer struct {
	ID     int64  `json:"id"`
	Name   string `json:"name"`
	Email  string `json:"email"`
	Region string `json:"region"`
}

type address struct {
	Street  string `json:"street"`
	City    string `json:"city"`
	Postal  string `json:"postal"`
	Country string `json:"country"`
}

// order is the body of orders.placed as order-service knows it.
type order struct {
	OrderID  string    `json:"orderId"`
	CartID   int64     `json:"cartId"`
	PlacedAt time.Time `json:"placedAt"`
	Customer customer  `json:"customer"`
	ShipTo   address   `json:"shipTo"`
	Items    []item    `json:"items"`
	Total    money     `json:"total"`
	Card     card      `json:"card"`
}

// placedOrder is the body as the newest storefront writes it. It has a field
// that order-service has not heard of.
type placedOrder struct {
	order
	GiftWrap *giftWrap `json:"giftWrap,omitempty"`
}

type giftWrap struct {
	Paper string `json:"paper"`
	Note  string `json:"note"`
}

type abandonedCart struct {
	CartID   int64    `json:"cartId"`
	Customer customer `json:"customer"`
	Items    []item   `json:"items"`
	Total    money    `json:"total"`
	Step     string   `json:"step"`
}

type fraudQuery struct {
	OrderID  string   `json:"orderId"`
	Customer customer `json:"customer"`
	Total    money    `json:"total"`
}

type fraudVerdict struct {
	OrderID string `json:"orderId"`
	Verdict string `json:"verdict"` // accept or review
	Score   int    `json:"score"`   // 0 to 100
	Model   string `json:"model"`
}

type captureRules struct {
	Mode       string `json:"mode"`
	DeadlineMs int64  `json:"deadlineMs"`
	ThreeDS    bool   `json:"threeDS"`
}

// capture is the body of payments.capture.
type capture struct {
	OrderID   string       `json:"orderId"`
	PaymentID int64        `json:"paymentId"`
	Amount    money        `json:"amount"`
	Card      card         `json:"card"`
	Capture   captureRules `json:"capture"`
	Customer  customer     `json:"customer"`
	ShipTo    address      `json:"shipTo"`
	Items     []item       `json:"items"`
}

// paid is the body of orders.paid and orders.declined.
type paid struct {
	OrderID   string   `json:"orderId"`
	PaymentID int64    `json:"paymentId"`
	Amount    money    `json:"amount"`
	Reference string   `json:"reference,omitempty"` // the provider's
	Reason    string   `json:"reason,omitempty"`    // of a decline
	Customer  customer `json:"customer"`
	ShipTo    address  `json:"shipTo"`
	Items     []item   `json:"items"`
}

// label is the body of shipping.labels.
type label struct {
	OrderID  string   `json:"orderId"`
	Carrier  string   `json:"carrier"`
	ShipTo   address  `json:"shipTo"`
	Customer customer `json:"customer"`
	Grams    int64    `json:"grams"`
	Parcels  int      `json:"parcels"`
}

// dispatched is the body of shipping.dispatched.
type dispatched struct {
	OrderID    string    `json:"orderId"`
	Carrier    string    `json:"carrier"`
	Tracking   string    `json:"tracking"`
	LabelID    int64     `json:"labelId"`
	PrintedAt  time.Time `json:"printedAt"`
	PrinterRef string    `json:"printer"`
}

// mail is the body of notifications.email.
type mail struct {
	To       string            `json:"to"`
	Template string            `json:"template"`
	Subject  string            `json:"subject"`
	Values   map[string]string `json:"values"`
}

// decode reads a body strictly: a field nobody knows is a contract somebody
// broke, and guessing what it means is worse than stopping.
func decode(m *message, into any) error {
	dec := json.NewDecoder(bytes.NewReader(m.Body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return &failure{Type: "ValidationError", Permanent: true,
			err: errors.New(strings.TrimPrefix(err.Error(), "json: "))}
	}
	return nil
}

var (
	catalogue = []struct {
		sku, name string
		cents     int64
		grams     int64
	}{
		{"TEA-0412", "Darjeeling First Flush 250 g", 2495, 280},
		{"TEA-0431", "Sencha Uji 100 g", 1890, 120},
		{"TEA-0455", "Assam Broken 500 g", 1750, 530},
		{"POT-0077", "Kyusu teapot, red clay", 8000, 900},
		{"POT-0081", "Glass teapot 1.2 l", 4450, 1100},
		{"CUP-0113", "Cup, celadon, pair", 3200, 640},
		{"CAN-0020", "Tea caddy, cherry bark", 5990, 310},
		{"SCL-0009", "Pocket scale 0.1 g", 2150, 200},
		{"BRW-0003", "Bamboo whisk", 1680, 60},
		{"GFT-0001", "Gift card", 5000, 10},
	}
	givenNames  = []string{"Anna", "Bashir", "Chiara", "Dmitri", "Élodie", "Fatima", "Göran", "Hana", "Ingrid", "José", "Katarzyna", "Liam", "Mei", "Noor", "Oskar", "Priya"}
	familyNames = []string{"Ahlberg", "Bianchi", "Çelik", "Dvořák", "Eriksen", "Fischer", "García", "Huang", "Ito", "Janssen", "Kowalska", "Müller", "Novák", "O'Brien", "Petit", "Singh"}
	places      = []address{
		{"Torstraße 140", "Berlin", "10119", "DE"}, {"Rue Oberkampf 88", "Paris", "75011", "FR"},
		{"Via Tortona 31", "Milano", "20144", "IT"}, {"Haarlemmerdijk 52", "Amsterdam", "1013 JE", "NL"},
		{"Götgatan 22", "Stockholm", "118 46", "SE"}, {"Calle de Atocha 9", "Madrid", "28012", "ES"},
		{"Nowy Świat 41", "Warszawa", "00-042", "PL"}, {"Mariahilfer Straße 77", "Wien", "1060", "AT"},
	}
	tenants  = []string{"acme", "globex", "initech", "umbrella"}
	papers   = []string{"indigo", "kraft", "red stars"}
	carriers = []string{"DHL", "PostNL", "DPD"}
)

// draw makes up one order. number identifies it and its payment.
func draw(rng *rand.Rand, number int64, now time.Time) order {
	given, family := pick(rng, givenNames), pick(rng, familyNames)
	place := pick(rng, places)
	o := order{
		OrderID:  fmt.Sprintf("ORD-%d", number),
		CartID:   firstPaymentID - 1_000_000_000_000 + number,
		PlacedAt: now.UTC().Truncate(time.Millisecond),
		Customer: customer{
			ID:     4_000_000 + rng.Int64N(400_000),
			Name:   given + " " + family,
			Email:  mailbox(given, family),
			Region: "EU-" + place.Country,
		},
		ShipTo: place,
		Card: card{
			Token:   "tok_" + text(rng, 12),
			PAN:     cardNumber(rng),
			Holder:  strings.ToUpper(given + " " + family),
			Expires: fmt.Sprintf("%02d/%02d", 1+rng.IntN(12), 27+rng.IntN(5)),
		},
	}
	var total int64
	for range 1 + rng.IntN(4) {
		c := pick(rng, catalogue)
		qty := 1 + rng.Int64N(3)
		o.Items = append(o.Items, item{SKU: c.sku, Name: c.name, Qty: qty, Price: euros(c.cents).Value})
		total += qty * c.cents
	}
	o.Total = euros(total)
	return o
}

// mailbox is an address under the domains reserved for examples.
func mailbox(given, family string) string {
	plain := strings.NewReplacer("É", "e", "é", "e", "ö", "o", "Ç", "c", "ç", "c", "ř", "r", "á", "a", "í", "i", "ü", "u", "'", "")
	return strings.ToLower(plain.Replace(given) + "." + plain.Replace(family) + "@example.org")
}

// cardNumber is a number of the shape of a card's, with the right check digit,
// in a range that schemes reserve for tests.
func cardNumber(rng *rand.Rand) string {
	digits := []byte("400000")
	for range 9 {
		digits = append(digits, byte('0'+rng.IntN(10)))
	}
	sum := 0
	for i, c := range digits { // fifteen digits, so those at even places are doubled
		d := int(c - '0')
		if i%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return string(append(digits, byte('0'+(10-sum%10)%10)))
}

func grams(items []item) (sum int64) {
	for _, it := range items {
		for _, c := range catalogue {
			if c.sku == it.SKU {
				sum += c.grams * it.Qty
			}
		}
	}
	return sum
}

func text(rng *rand.Rand, n int) string {
	const alphabet = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[rng.IntN(len(alphabet))]
	}
	return string(b)
}

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }
