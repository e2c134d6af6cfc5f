//! Work that waits for a consumer, and consumers that wait for work. This file does not know what the work is.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Maximum number of idle consumers that take turns. Other consumers, which have been idle for longer, are not woken:
/// the memory of their instances has left the processor's cache, or was never touched. With 1,000 consumers of a fast
/// plugin this saves an eighth of the host's CPU time for a message, and a third of its memory. Any number from 8 to
/// 128 has the same effect.
const IN_TURN: usize = 64;

/// A queue of work for idle consumers. Clones share the same queue.
#[derive(Debug)]
pub struct Queue<T>(Arc<Mutex<Waiting<T>>>);

/// A woken consumer that has not taken its work yet does not count as idle.
#[derive(Debug)]
struct Waiting<T> {
    /// Bounded by the callers of `add`.
    work: VecDeque<T>,
    /// Idle consumers; the consumer that became idle last is at the end. Some may not wait any more.
    idle: VecDeque<oneshot::Sender<()>>,
    closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue(Arc::new(Mutex::new(Waiting { work: VecDeque::new(), idle: VecDeque::new(), closed: false })))
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Queue<T> {
        Queue(Arc::clone(&self.0))
    }
}

impl<T> Queue<T> {
    /// Adds work and wakes an idle consumer. The first free consumer takes the work. A closed queue drops the work.
    pub fn add(&self, work: T) {
        {
            let mut waiting = self.lock();
            if waiting.closed {
                return;
            }
            waiting.work.push_back(work);
        }
        self.wake();
    }

    /// Wakes an idle consumer, if there is work.
    fn wake(&self) {
        while let Some(consumer) = self.next_idle() {
            if consumer.send(()).is_ok() {
                return;
            }
        }
    }

    /// The consumer to wake: the longest idle one of those that take turns.
    fn next_idle(&self) -> Option<oneshot::Sender<()>> {
        let mut waiting = self.lock();
        if waiting.work.is_empty() {
            return None;
        }
        let next = waiting.idle.len().saturating_sub(IN_TURN);
        waiting.idle.remove(next)
    }

    /// Whether a consumer waits for work, and no work waits for a consumer.
    #[must_use]
    pub fn has_idle(&self) -> bool {
        let waiting = self.lock();
        waiting.work.is_empty() && waiting.idle.iter().rev().any(|consumer| !consumer.is_closed())
    }

    /// Takes work, if there is any, without waiting.
    #[must_use]
    pub fn waiting(&self) -> Option<T> {
        self.lock().work.pop_front()
    }

    /// Waits for work; `None` when the queue is closed. The future may be dropped at any moment.
    pub async fn next(&self) -> Option<T> {
        loop {
            let mut place = {
                let mut waiting = self.lock();
                if let Some(work) = waiting.work.pop_front() {
                    return Some(work);
                }
                if waiting.closed {
                    return None;
                }
                let (sender, woken) = oneshot::channel();
                waiting.add_idle(sender);
                Place { queue: self, woken }
            };
            // An error means that the queue is closed. Otherwise another consumer may already have taken the work.
            let _ = (&mut place.woken).await;
        }
    }

    /// Closes the queue, and returns all work that no consumer has taken.
    #[must_use]
    pub fn close(&self) -> Vec<T> {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.idle.clear();
        waiting.work.drain(..).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Waiting<T> {
    fn add_idle(&mut self, consumer: oneshot::Sender<()>) {
        // Remove consumers that do not wait any more before the queue grows, so that there are never many of them.
        if self.idle.len() == self.idle.capacity() {
            self.idle.retain(|consumer| !consumer.is_closed());
        }
        self.idle.push_back(consumer);
    }
}

/// The place of a waiting consumer.
struct Place<'a, T> {
    queue: &'a Queue<T>,
    woken: oneshot::Receiver<()>,
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        self.woken.close();
        // The consumer was woken at the moment when it stopped waiting: wake another one.
        if self.woken.try_recv().is_ok() {
            self.queue.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Next<'a> = Pin<Box<dyn Future<Output = Option<u32>> + 'a>>;

    /// This number of consumers, which became idle one after the other.
    fn idle(queue: &Queue<u32>, consumers: usize) -> Vec<Next<'_>> {
        let mut idle: Vec<Next<'_>> = (0..consumers).map(|_| -> Next<'_> { Box::pin(queue.next()) }).collect();
        idle.iter_mut().for_each(|next| assert!(poll(next.as_mut()).is_pending()));
        idle
    }

    fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Who gets the work.
    fn taker(queue: &Queue<u32>, idle: &mut [Next<'_>]) -> usize {
        queue.add(1);
        idle.iter_mut().position(|next| poll(next.as_mut()) == Poll::Ready(Some(1))).expect("somebody takes it")
    }

    #[test]
    fn consumers_take_turns_and_of_many_the_idlest_are_left_alone() {
        let queue = Queue::default();
        assert_eq!(taker(&queue, &mut idle(&queue, IN_TURN)), 0);
        assert_eq!(taker(&queue, &mut idle(&queue, IN_TURN + 10)), 10);
    }

    #[test]
    fn work_that_nobody_can_take_waits_in_order() {
        let queue = Queue::default();
        [1, 2, 3].into_iter().for_each(|work| queue.add(work));
        assert_eq!(queue.waiting(), Some(1));
        assert_eq!(poll(pin!(queue.next())), Poll::Ready(Some(2)));
        assert_eq!(queue.waiting(), Some(3));
        assert_eq!(queue.waiting(), None);
    }

    #[test]
    fn work_of_a_consumer_that_ceased_to_wait_is_anothers() {
        let queue = Queue::default();
        let mut consumers = idle(&queue, 3);
        drop(consumers.remove(0)); // before it was given anything
        queue.add(1);
        drop(consumers.remove(0)); // and after it
        assert_eq!(poll(consumers[0].as_mut()), Poll::Ready(Some(1)));

        drop(idle(&queue, 2));
        queue.add(2);
        assert_eq!(queue.waiting(), Some(2));
    }

    #[test]
    fn a_consumer_is_idle_while_it_waits_and_there_is_no_work() {
        let queue = Queue::default();
        assert!(!queue.has_idle());
        let consumers = idle(&queue, 1);
        assert!(queue.has_idle());
        drop(consumers);
        assert!(!queue.has_idle());
        let _waiting = idle(&queue, 1);
        queue.add(1);
        assert!(!queue.has_idle());
    }

    #[test]
    fn those_that_ceased_to_wait_are_forgotten() {
        let queue = Queue::default();
        (0..1_000).for_each(|_| drop(idle(&queue, 10)));
        assert!(queue.lock().idle.len() < 100);
    }

    #[test]
    fn a_closed_queue_ends_for_everybody_and_returns_what_waits() {
        let queue = Queue::default();
        [1, 2].into_iter().for_each(|work| queue.add(work));
        assert_eq!(queue.close(), [1, 2]);
        queue.add(3);
        assert_eq!(queue.waiting(), None);
        assert_eq!(poll(pin!(queue.next())), Poll::Ready(None));

        let queue = Queue::default();
        let mut consumers = idle(&queue, 1);
        assert!(queue.close().is_empty());
        assert_eq!(poll(consumers[0].as_mut()), Poll::Ready(None));
    }
}
