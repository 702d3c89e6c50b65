// The page's functions on texts alone: no DOM, no network.

const TOKENS = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

// The JSON text of each member of an object. JSON.parse would round integers above 2^53 and drop a number's last zeros.
export function memberTexts(json) {
  const members = {};
  let depth = 0;
  let key = null;
  let start = 0;
  for (const { 0: token, index } of json.matchAll(TOKENS)) {
    const closes = token === "}" || token === "]";
    if (depth === 1 && key !== null && (token === "," || token === "}")) {
      members[key] = json.slice(start, index).trim();
      key = null;
    } else if (depth === 1 && key === null && token[0] === '"') {
      key = JSON.parse(token);
    } else if (depth === 1 && token === ":") {
      start = index + 1;
    }
    if (token === "{" || token === "[") depth += 1;
    if (closes) depth -= 1;
  }
  return members;
}

// JSON with line breaks and indentation; each string and number stays as it is written.
export function pretty(json) {
  let out = "";
  let depth = 0;
  let before = "";
  const line = () => `\n${"  ".repeat(depth)}`;
  for (const [token] of json.matchAll(TOKENS)) {
    const opened = before === "{" || before === "[";
    if (token === "}" || token === "]") {
      depth -= 1;
      out += opened ? token : line() + token;
    } else {
      if (opened) out += line();
      out += token === ":" ? ": " : token;
      if (token === ",") out += line();
      if (token === "{" || token === "[") depth += 1;
    }
    before = token;
  }
  return out;
}

// A percent-encoded text; null if it is none.
export function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}

// The parts of the page's address behind `#/`; null if one of them is no percent-encoded text.
export function address(hash) {
  const parts = hash.replace(/^#\/?/, "").split("/").map(decoded);
  return parts.includes(null) ? null : parts;
}

// `due in 59 min`, given how long that is from now in words.
export function dueText(about) {
  return about === "just now" || about.endsWith(" ago") ? "due now" : `due ${about}`;
}
