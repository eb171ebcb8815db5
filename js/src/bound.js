/**
 * Bind the methods and accessors of an object to it, so that they work behind a proxy.
 *
 * Vue and Alpine hand out proxies of the objects that they keep. Through a proxy, neither private
 * members nor the browser's own methods, such as those of EventTarget, can be reached.
 *
 * @param {object} object
 */
export function bindMembers(object) {
  for (let type = object; (type = Object.getPrototypeOf(type)) !== Object.prototype; ) {
    for (const [name, member] of Object.entries(Object.getOwnPropertyDescriptors(type))) {
      if (name === "constructor" || Object.hasOwn(object, name)) continue;
      const { value, get, set } = member;
      const bound =
        typeof value === "function"
          ? { value: value.bind(object), writable: true }
          : { get: get?.bind(object), set: set?.bind(object) };
      Object.defineProperty(object, name, { ...bound, configurable: true });
    }
  }
}
