/**
 * Return a function that removes a listener, unless it is Alpine that calls it.
 *
 * Alpine calls every function that an expression returns, so `x-init="order.on(…)"` would remove
 * its listener at once. Such a call comes in the task that added the listener. Its `this` is the
 * expression's scope, which has Alpine's magic properties, or the function itself (Alpine's build
 * for content security policies).
 *
 * @param {() => void} remove
 * @returns {() => void}
 */
export function makeRemover(remove) {
  let isNew = true;
  setTimeout(() => {
    isNew = false;
  });
  return /** @this {unknown} */ function remover() {
    if (!isNew || (this !== remover && !isAlpineScope(this))) remove();
  };
}

/** @param {unknown} value */
function isAlpineScope(value) {
  return typeof value === "object" && value !== null && "$dispatch" in value;
}
