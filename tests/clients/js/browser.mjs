// As much of a browser as a launch needs: redirects and cookies.
const MOST_REDIRECTS = 20;

// The last answer on the way from `url`; `visited` are the URLs on that way.
export async function browse(url) {
  const jar = new Map();
  const visited = [];
  while (visited.length < MOST_REDIRECTS) {
    visited.push(url);
    const cookies = jar.get(new URL(url).origin) ?? new Map();
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const answer = await fetch(url, { redirect: "manual", headers: { cookie } });
    for (const line of answer.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      if (value) cookies.set(name, value);
      else cookies.delete(name);
    }
    jar.set(new URL(url).origin, cookies);
    const location = answer.headers.get("location");
    if (!location) return { answer, visited };
    url = new URL(location, url).href;
  }
  throw new Error(`more than ${MOST_REDIRECTS} redirects: ${visited.join(" ")}`);
}
