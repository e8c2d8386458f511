// The storefront. Only erasable TypeScript: a build strips the types and leaves the rest as it is.

interface Item {
  id: number;
  name: string;
  description: string;
  category: string;
  price_cents: number;
  calories_kcal: number;
  protein_grams: number;
  tags: string[];
}

interface Order {
  id: string;
  status: "received" | "preparing" | "ready";
  total_cents: number;
  lines: { item: number; name: string; quantity: number }[];
}

interface Problem {
  detail: string;
}

const MAX_QUANTITY: number = 20;
const basket: Map<number, number> = new Map();
const known: Map<number, Item> = new Map();
let orderKey: string = newKey();

function byId<T extends HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

function element(tag: string, text: string = "", className: string = ""): HTMLElement {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function euros(cents: number): string {
  return (cents / 100).toLocaleString("en-IE", { style: "currency", currency: "EUR" });
}

function button(text: string, label: string, act: () => void, className: string = ""): HTMLElement {
  const made = element("button", text, className) as HTMLButtonElement;
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

async function getJson<T>(path: string): Promise<T> {
  const response = await fetch(path, { headers: { Accept: "application/json" } });
  const body: unknown = await response.json();
  if (!response.ok) throw new Error((body as Problem).detail);
  return body as T;
}

function card(item: Item): HTMLElement {
  const made = element("li");
  const tags = element("ul", "", "tags");
  tags.append(...item.tags.map((tag: string) => element("li", tag)));
  const buy = element("div", "", "buy");
  buy.append(element("span", euros(item.price_cents), "price"));
  buy.append(button("Add", `Add ${item.name} to the basket`, () => change(item.id, 1)));
  made.append(
    element("h3", item.name),
    element("p", item.description),
    element("p", `${item.calories_kcal} kcal · ${item.protein_grams} g protein`, "quiet"),
    tags,
    buy,
  );
  return made;
}

function showItems(items: Item[], note: string): void {
  for (const item of items) known.set(item.id, item);
  byId("items").replaceChildren(...items.map(card));
  byId("found").textContent = note;
}

function change(id: number, by: number): void {
  const quantity: number = Math.min((basket.get(id) ?? 0) + by, MAX_QUANTITY);
  if (quantity > 0) basket.set(id, quantity);
  else basket.delete(id);
  orderKey = newKey(); // another basket is another order
  showBasket();
}

function showBasket(): void {
  let total: number = 0;
  const lines: HTMLElement[] = [];
  for (const [id, quantity] of basket) {
    const item = known.get(id)!;
    total += item.price_cents * quantity;
    const line = element("li");
    const steps = element("span");
    steps.append(
      button("−", `One ${item.name} less`, () => change(id, -1), "small"),
      ` ${quantity} `,
      button("+", `One ${item.name} more`, () => change(id, 1), "small"),
    );
    line.append(element("span", item.name), steps);
    lines.push(line);
  }
  byId("lines").replaceChildren(...lines);
  byId("empty").hidden = basket.size > 0;
  byId("total").hidden = byId("order").hidden = basket.size === 0;
  byId("total").textContent = `Total ${euros(total)}`;
}

async function order(): Promise<void> {
  const lines = [...basket].map(([item, quantity]) => ({ item, quantity }));
  const customer: string = byId<HTMLInputElement>("customer").value;
  const response = await fetch("api/orders", {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": orderKey },
    body: JSON.stringify({ lines, customer }),
  });
  if (!response.ok) throw new Error(((await response.json()) as Problem).detail);
  const placed = (await response.json()) as Order;
  basket.clear();
  orderKey = newKey();
  showBasket();
  await follow(placed.id);
}

// crypto.randomUUID is there only over https or on localhost
function newKey(): string {
  return crypto.getRandomValues(new Uint32Array(4)).join("-");
}

async function follow(id: string): Promise<void> {
  const placed = await getJson<Order>(`api/orders/${id}`);
  byId("placed").replaceChildren(
    element("h3", `Order ${placed.id}`),
    element("p", `${euros(placed.total_cents)} · ${placed.status}`),
    button("Refresh", "Refresh the order's status", () => void follow(id).catch(complain), "small"),
  );
}

function complain(problem: unknown): void {
  byId("placed").replaceChildren(element("p", `That did not work: ${String(problem)}`, "notice"));
}

async function search(query: string): Promise<void> {
  if (!query.trim()) return showMenu();
  const found = await getJson<{ results: Item[] }>(`api/search?q=${encodeURIComponent(query)}`);
  if (byId<HTMLInputElement>("q").value !== query) return; // a later key stroke is on its way
  showItems(found.results, `${found.results.length} found for “${query}”`);
}

async function showMenu(): Promise<void> {
  const menu = await getJson<{ items: Item[] }>("api/menu");
  showItems(menu.items, `${menu.items.length} boxes`);
}

let typing: number = 0;
byId<HTMLInputElement>("q").addEventListener("input", (event: Event) => {
  const query: string = (event.target as HTMLInputElement).value;
  clearTimeout(typing);
  typing = window.setTimeout(() => void search(query).catch(complain), 150);
});
byId("search").addEventListener("submit", (event: Event) => event.preventDefault());
byId("order").addEventListener("submit", (event: Event) => {
  event.preventDefault();
  order().catch(complain);
});
showMenu().catch(complain);
