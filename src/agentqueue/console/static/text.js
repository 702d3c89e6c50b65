// Functions of the page that use only text: no DOM, no network.

const TOKENS = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

// Returns the JSON text of each member of an object. JSON.parse would round integers above 2^53 and drop trailing zeros.
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

// Returns JSON with line breaks and indentation. Strings and numbers are unchanged.
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

// Returns the decoded text of a percent-encoded one; null if it is not valid.
export function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}

// Returns the parts of the page's address after `#/`; null if one of them is not valid percent-encoded text.
export function address(hash) {
  const parts = hash.replace(/^#\/?/, "").split("/").map(decoded);
  return parts.includes(null) ? null : parts;
}

// Returns a text like `due in 59 min`, given the time from now in words.
export function dueText(about) {
  return about === "just now" || about.endsWith(" ago") ? "due now" : `due ${about}`;
}
